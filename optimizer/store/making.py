"""How a study comes to be: made and stamped by exactly one process, however many want it in the same instant."""

from __future__ import annotations

import warnings

import optuna
from optuna.study import Study, StudyDirection

from optimizer.store.database import Database
from optimizer.store.ledger import Ledger
from optimizer.store.stamp import Stamp


def found_or_made(database: Database, name: str) -> Study:
    """The study of that name; where there is none, an empty one without a stamp."""
    return optuna.create_study(study_name=name, storage=database.storage, direction="maximize", load_if_exists=True)


def unmade(study: Study) -> bool:
    """Whether a study is as `found_or_made` makes it: whoever made it has yet to stamp it, or has died before."""
    fresh = study.direction == StudyDirection.MAXIMIZE and not study.user_attrs
    return fresh and not study.get_trials(deepcopy=False)


def stamp_if_unmade(ledger: Ledger, stamp: Stamp) -> None:
    """Stamp a study, in this process's turn, unless another one has done so."""

    def write() -> None:
        if unmade(ledger.study):
            with warnings.catch_warnings():
                # optuna-dashboard reads the names; their interface may change, as the warning says.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                ledger.study.set_metric_names(["validation_accuracy"])
            stamp.write(ledger.study)

    ledger.in_turn(write)
