"""What is kept: Optuna's tables, and a few of our own beside them in the same database."""
