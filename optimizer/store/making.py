"""How a study comes to be: made and stamped by exactly one process, however many want it in the same instant."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.study import Study

from optimizer.store.caching import Caching
from optimizer.store.database import Database
from optimizer.store.ledger import Ledger
from optimizer.store.stamp import Stamp
from optimizer.training.task import MAXIMIZE, Direction, Goal


def found_or_made(database: Database, name: str, directions: Sequence[Direction] = MAXIMIZE) -> Study:
    """The study of that name; where there is none, an empty one of these directions without a stamp."""
    storage = Caching(database.storage)
    return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)


def unmade(study: Study, directions: Sequence[Direction] = MAXIMIZE) -> bool:
    """Whether a study is as `found_or_made` makes it: whoever made it has yet to stamp it, or has died before."""
    same = [direction.name.lower() for direction in study.directions] == list(directions)
    return same and not study.user_attrs and not study.get_trials(deepcopy=False)


def name_metrics(study: Study, goal: Goal) -> None:
    """Say what a trial's values are."""
    with warnings.catch_warnings():
        # optuna-dashboard reads the names; their interface may change, as the warning says.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(goal.metrics)


def stamp_if_unmade(ledger: Ledger, stamp: Stamp) -> None:
    """Stamp a study, in this process's turn, unless another one has done so."""

    def write() -> None:
        if unmade(ledger.study, stamp.goal.directions):
            name_metrics(ledger.study, stamp.goal)
            ledger.confirmations.forget()
            stamp.write(ledger.study)

    ledger.in_turn(write)
