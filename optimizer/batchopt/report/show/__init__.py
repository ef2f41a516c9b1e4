"""How it is said: on the terminal, on a page, in pictures, in optuna-dashboard."""
