"""How a study comes to be: made and stamped by exactly one process, however many want it in the same instant."""

from __future__ import annotations

import warnings

import optuna
from optuna.study import Study, StudyDirection

from optimizer.store.database import Database
from optimizer.store.ledger import Ledger
from optimizer.store.stamp import Stamp

METRIC = "validation_accuracy"
"""The name of a trial's value, as of the user attribute of its last epoch."""


def found_or_made(database: Database, name: str) -> Study:
    """The study of that name; where there is none, an empty one without a stamp."""
    return optuna.create_study(study_name=name, storage=database.storage, direction="maximize", load_if_exists=True)


def unmade(study: Study) -> bool:
    """Whether a study is as `found_or_made` makes it: whoever made it has yet to stamp it, or has died before."""
    fresh = study.direction == StudyDirection.MAXIMIZE and not study.user_attrs
    return fresh and not study.get_trials(deepcopy=False)


def name_metric(study: Study) -> None:
    """Say what a trial's value is."""
    with warnings.catch_warnings():
        # optuna-dashboard reads the names; their interface may change, as the warning says.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRIC])


def stamp_if_unmade(ledger: Ledger, stamp: Stamp) -> None:
    """Stamp a study, in this process's turn, unless another one has done so."""
    with ledger.turn():
        if unmade(ledger.study):
            name_metric(ledger.study)
            stamp.write(ledger.study)
