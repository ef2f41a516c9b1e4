"""How a study comes to be: made and stamped by exactly one process, however many want it in the same instant."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.study import Study

from batchopt.errors import InvalidInput
from batchopt.goals.kinds import kind_of
from batchopt.question.metric import Direction
from batchopt.store.caching import Caching
from batchopt.store.database import Database
from batchopt.store.ledger import Ledger
from batchopt.store.stamp import Stamp

LONGEST_NAME = 512
"""Letters of a study's name that Optuna's tables have room for."""


def checked_name(name: str) -> str:
    """A study's name that every database can hold.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(name, str) or not 0 < len(name.strip()) <= len(name) <= LONGEST_NAME:
        shown = repr(name) if len(str(name)) <= LONGEST_NAME else f"of {len(name)} letters"
        raise InvalidInput(f"--study {shown}: give a name of 1 to {LONGEST_NAME} letters.")
    if not name.isprintable():
        raise InvalidInput(f"--study {name!r}: a name has letters that can be printed, and no others.")
    return name


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna says what it does only where something is wrong; other studies of this process are heard again after."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def found_or_made(database: Database, name: str, directions: Sequence[Direction] = ("maximize",)) -> Study:
    """The study of that name; where there is none, an empty one of these directions without a stamp."""
    storage = Caching(database.storage)
    with quiet_optuna():
        return optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)


def unmade(study: Study) -> bool:
    """Whether a study is as `found_or_made` makes it: whoever made it has yet to stamp it, or has died before."""
    return not study.user_attrs and not study.get_trials(deepcopy=False)


def name_values(study: Study, names: Sequence[str]) -> None:
    """Say what a trial's values are."""
    with warnings.catch_warnings():
        # optuna-dashboard reads the names; their interface may change, as the warning says.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))


def stamp_if_unmade(ledger: Ledger, stamp: Stamp) -> None:
    """Stamp a study, in this process's turn, unless another one has done so."""

    def write() -> None:
        kind = kind_of(stamp.goal, stamp.metric)
        same = [direction.name.lower() for direction in ledger.study.directions] == list(kind.directions)
        if same and unmade(ledger.study):
            name_values(ledger.study, kind.value_names)
            ledger.confirmations.forget()
            stamp.write(ledger.study)

    ledger.in_turn(write)
