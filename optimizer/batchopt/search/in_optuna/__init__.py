"""Searches as Optuna knows them: ours behind its interface, and its own behind ours."""
