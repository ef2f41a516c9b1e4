"""Runs that confirm a recommendation: kept apart from the trials, so that no search ever learns of the test set."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from batchopt.store.tables import confirmations_table

Role = Literal["recommended", "fastest", "reference"]
"""What a configuration is to a recommendation: itself, as good in less time, or the common default."""

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class ConfirmationRun:
    """One run of one configuration, trained as a trial of the study is and then looked at on the test set.

    Attributes:
        plan: the recommendation that was confirmed, see `plan_of`.
        role: what the configuration was to it.
        run: from 0; runs of one number begin with the same initial weights and see the samples in the same order.
        trials: how many trials of the study had ended.
        machine: fingerprint of the machine that trained it.
        seed: of its initial weights.
        epochs: how many it was trained; fewer than the goal's where it diverged, or was at the target.
        train_seconds: on the training clock, all epochs together; until the target where it was reached, interpolated
            within the last epoch.
        validation_value, test_loss, test_value: after the last epoch; None where training diverged.
    """

    plan: str
    role: Role
    run: int
    trials: int
    machine: str
    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    seed: int
    epochs: int
    train_seconds: float
    validation_value: float | None
    test_loss: float | None
    test_value: float | None


def plan_of(params: Mapping[str, Any]) -> str:
    """The name of what confirms the recommendation of these parameters."""
    return hashlib.sha256(json.dumps(dict(params), sort_keys=True).encode()).hexdigest()


class Confirmations:
    """Those of one study.

    Args:
        db: its database.
        study_id: Optuna's.
    """

    def __init__(self, db: Engine, study_id: int) -> None:
        self._db = db
        self._study_id = study_id

    def add(self, run: ConfirmationRun) -> None:
        """Keep a run; where another process was faster, its run stays."""
        values = {name: _storable(value) for name, value in asdict(run).items()}
        try:
            with self._db.begin() as connection:
                connection.execute(confirmations_table.insert().values(study_id=self._study_id, **values))
        except sa.exc.IntegrityError:
            return

    def all(self) -> list[ConfirmationRun]:
        """All runs, those of the first recommendation first; none where an earlier version has not made the table."""
        table = confirmations_table
        if not sa.inspect(self._db).has_table(table.name):
            return []
        columns = [column for column in table.c if column is not table.c.study_id]
        order = (table.c.trials, table.c.plan, table.c.run, table.c.role)
        query = sa.select(*columns).where(table.c.study_id == self._study_id).order_by(*order)
        with self._db.connect() as connection:
            return [ConfirmationRun(**row) for row in connection.execute(query).mappings()]

    def forget(self) -> None:
        """Remove all: a new study has none, and SQLite gives it the id of one that another program has deleted."""
        table = confirmations_table
        with self._db.begin() as connection:
            connection.execute(table.delete().where(table.c.study_id == self._study_id))


def _storable(value: Any) -> Any:
    """NULL for NaN and infinity, which not every database can hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
