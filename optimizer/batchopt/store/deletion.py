"""What another program deletes while a study runs: seen before anything is written to what has its id by then.

SQLite gives the ids of deleted rows again, and Optuna numbers a trial by how many there are, so a trial that is gone
is replaced by a failed one: no other trial gets its id, or its number.
"""

from __future__ import annotations

import json
import uuid

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import Engine

from batchopt.errors import StorageError, StorageFailed
from batchopt.store.attributes import FAILURE, GUID
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.records import forget, put_attributes
from batchopt.store.tables import optunas_studies, optunas_trials, optunas_user_attributes, optunas_values

DELETED = "deleted by another program"


def guid_of(connection: sa.Connection, trial_id: int, study_id: int) -> str | None:
    """The GUID of a trial; None where it has none, or is no trial of this study."""
    trials, attributes = optunas_trials, optunas_user_attributes
    mine = sa.and_(trials.c.trial_id == trial_id, trials.c.study_id == study_id, attributes.c.key == GUID)
    query = sa.select(attributes.c.value_json).join(trials, trials.c.trial_id == attributes.c.trial_id)
    named = connection.execute(query.where(mine)).scalar()
    return None if named is None else str(json.loads(named))


def named(connection: sa.Connection, trial_id: int, study_id: int, checkpoints: Checkpoints) -> str:
    """The GUID of a trial; it is given one, unless it has one."""
    known = guid_of(connection, trial_id, study_id)
    if known is not None:
        return known
    values = optunas_values
    if connection.execute(sa.select(values).where(values.c.trial_id == trial_id)).first() is None:
        # SQLite gives a trial the id of one that was deleted with its study by a program that left our rows behind.
        checkpoints.forget_training(connection, trial_id)
    guid = uuid.uuid4().hex
    put_attributes(connection, trial_id, {GUID: guid})
    return guid


def study_gone(connection: sa.Connection, study_id: int, name: str, url: str) -> StorageFailed | None:
    """What to say where a study is not there any more; None where it is. Another one may have its id."""
    studies = optunas_studies
    mine = sa.and_(studies.c.study_id == study_id, studies.c.study_name == name)
    if connection.execute(sa.select(studies.c.study_id).where(mine)).first() is not None:
        return None
    return StorageFailed(
        f"study {name!r} was deleted from database {url} by another program while it ran. Nothing of it is left there; "
        "the same command begins it anew."
    )


def check_numbers(connection: sa.Connection, study_id: int, name: str, url: str) -> None:
    """Refuse a study whose trials are not numbered from 0 on: Optuna would give numbers twice.

    Raises:
        StorageError: another program has deleted some.
    """
    number = optunas_trials.c.number
    figures = sa.func.count(), sa.func.count(number.distinct()), sa.func.min(number), sa.func.max(number)
    count, *found = connection.execute(sa.select(*figures).where(optunas_trials.c.study_id == study_id)).one()
    if count and found != [count, 0, count - 1]:
        raise StorageError(
            f"study {name!r} in {url}: another program has deleted trials of it. Run `batchopt doctor --fix` on its "
            "database first."
        )


def keep_place(engine: Engine, trial_id: int, study_id: int, number: int) -> None:
    """Put a failed trial in the place of one that was deleted, unless another one is there by now."""
    trials = optunas_trials
    with engine.begin() as connection:
        if connection.execute(sa.select(trials.c.trial_id).where(trials.c.trial_id == trial_id)).first() is None:
            row = {"trial_id": trial_id, "study_id": study_id, "number": number, "state": TrialState.FAIL}
            connection.execute(trials.insert().values(**row))
            put_attributes(connection, trial_id, {FAILURE: DELETED})
            forget(connection, trial_id)
