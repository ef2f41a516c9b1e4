"""A study that is looked for before anything is written: whether it is there, and whether it asks the same question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import Study

from batchopt.errors import StorageError, StorageNotFound
from batchopt.events import TrialEnded
from batchopt.goals.kinds import kind_of
from batchopt.measured import EngineName
from batchopt.optuna_private import study_id_of
from batchopt.question.goal import Goal
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.store.access import opened
from batchopt.store.address import shown_storage
from batchopt.store.attributes import ACCUMULATE, ENGINES, TRAIN_SECONDS
from batchopt.store.database import Database, check_storage
from batchopt.store.deletion import check_numbers
from batchopt.store.history import best_complete, count_states, open_study
from batchopt.store.making import unmade
from batchopt.store.stamp import Stamp
from batchopt.study.opening import checked_stamp


@dataclass(frozen=True)
class Found:
    """What there is of a study already.

    Attributes:
        stamp: its question.
        engines: how epochs are run on each of its machines, by fingerprint.
        accumulate: whether batches that memory does not hold are trained in micro-batches.
        finished, running: how many of its trials are.
        best: the best of those that are complete; None where none is.
    """

    stamp: Stamp
    engines: dict[str, EngineName]
    accumulate: bool
    finished: int
    running: int
    best: TrialEnded | None


def find(
    name: str, storage: str, space_for: Callable[[int], SearchSpace], goal: Goal, seed: int | None
) -> Found | None:
    """The study, if it is there, checked to be the one that is asked for.

    Args:
        name: of the study in its database.
        storage: a path, or an SQLAlchemy URL.
        space_for: number of training examples -> the space that is asked for.
        goal, seed: what is asked for; any seed where None.

    Raises:
        StorageError: it is there, and was not made by batchopt; or its database cannot be used.
        StudyMismatch: it asks another question.
    """
    check_storage(storage, create=True)
    where = shown_storage(storage)
    try:
        with opened(storage, plain=True) as database:
            if name not in optuna.get_all_study_names(database.storage):
                return None
            study = open_study(database, name)
            if unmade(study):
                return None
            with database.db.connect() as connection:
                check_numbers(connection, study_id_of(study), name, where)
            stamp = checked_stamp(study, where, space_for, goal, seed)
            states = count_states(database, study)
            return Found(
                stamp,
                engines=study.user_attrs.get(ENGINES, {}),
                accumulate=study.user_attrs.get(ACCUMULATE, False),
                finished=sum(count for state, count in states.items() if state not in ("running", "waiting")),
                running=states.get("running", 0),
                best=best_of(database, study, stamp),
            )
    except StorageNotFound:
        return None


def remembered(name: str, storage: str, attribute: str) -> object:
    """How a study was first asked for, as JSON values; None where it was not asked for in that way.

    Raises:
        StudyNotFound: it is not there; StorageError: its database cannot be used.
    """
    with opened(storage) as database:
        return open_study(database, name).user_attrs.get(attribute)


def differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """What two questions do not have in common, in words."""
    names = sorted(stored.keys() | asked.keys())
    return [
        f"{name} {stored.get(name)!r} and not {asked.get(name)!r}"
        for name in names
        if stored.get(name) != asked.get(name)
    ]


def refuse_foreign(name: str, storage: str, directions: Sequence[str]) -> None:
    """Refuse an empty study of other directions, which no batchopt has made; nothing is written.

    Raises:
        StorageError: it is one.
    """
    try:
        with opened(storage, plain=True) as database:
            if name not in optuna.get_all_study_names(database.storage):
                return
            study = optuna.load_study(study_name=name, storage=database.storage)
            if [direction.name.lower() for direction in study.directions] != list(directions):
                where = shown_storage(storage)
                raise StorageError(f"study {name!r} in {where} was not made by batchopt. Use --study another-name.")
    except StorageNotFound:
        return


def best_of(database: Database, study: Study, stamp: Stamp) -> TrialEnded | None:
    """The best complete trial by the goal, as it was told when it ended."""
    # By its first value, whatever the goal; where there is a target these are what it took.
    target = stamp.goal.target
    trial = best_complete(database, study, least=target is not None or stamp.metric.sign < 0)
    if trial is None:
        return None
    size, rate = trial.params[BATCH_SIZE], trial.params[LEARNING_RATE]
    curve, seconds = trial.intermediate_values, trial.user_attrs.get(TRAIN_SECONDS, 0.0)
    to_target = None if target is None else trial.values[0]
    return TrialEnded(
        trial.number,
        "complete",
        size,
        rate,
        stamp.metric,
        stamp.goal.counted(curve, stamp.metric) if curve else None,
        len(curve),
        seconds,
        note="" if to_target is None else kind_of(stamp.goal, stamp.metric).reached(to_target),
        cost_to_target=to_target,
    )
