"""What is kept of a study as a whole: its wall time, its machines, and what a probe has found on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import sqlalchemy as sa
from optuna.study import Study
from sqlalchemy.engine import Engine

from batchopt.machine.machine import Machine
from batchopt.measured import MemoryRow, StepTime
from batchopt.optuna_private import study_id_of
from batchopt.question.goal import PREFERENCES, Prefer
from batchopt.store.attributes import ACCUMULATE, ELAPSED, ENGINES, MEMORY_LIMITS, PREFER, TOGETHER
from batchopt.store.measurements import MeasuredOn, Measurements
from batchopt.store.records import Records, put_entry
from batchopt.store.tables import optunas_study_system_attributes, optunas_trials
from batchopt.store.transactions import Transactions

T = TypeVar("T")


def preference(study: Study) -> Prefer:
    """What a study was asked to recommend."""
    kept = study.user_attrs.get(PREFER)
    # A database may hold anything.
    return next((known for known in PREFERENCES if known == kept), "balanced")


def remove_attributes(db: Engine, study: Study, prefixes: Sequence[str]) -> None:
    """Remove the system attributes of a study whose keys begin so; Optuna can write them, and never takes one away."""
    if not prefixes:
        return
    table = optunas_study_system_attributes
    mine = sa.or_(*(table.c.key.startswith(prefix, autoescape=True) for prefix in prefixes))
    with db.begin() as connection:
        connection.execute(table.delete().where(table.c.study_id == study_id_of(study), mine))


class StudyLedger:
    """Writes what belongs to no trial; anyone may, and twice does no harm. Counts the trials.

    Attributes:
        db: the database.
        study: in it.
        records: our own tables.
        transactions: how writes are done again.
    """

    def __init__(self, db: Engine, study: Study, records: Records, transactions: Transactions) -> None:
        self.db = db
        self.study = study
        self.records = records
        self.transactions = transactions
        self._how: dict[str, str | bool] = {"engine": ""}
        self._measured: tuple[MeasuredOn, int | None] | None = None

    def count_started(self) -> int:
        """How many trials the study has, those that wait to be started left out."""
        return self._count(but=("WAITING",))

    def count_finished(self) -> int:
        """How many trials have ended, however they did."""
        return self._count(but=("WAITING", "RUNNING"))

    def set_elapsed(self, seconds: float) -> None:
        """Keep the wall seconds of all sessions; of those that go on at the same time, the longest counts."""
        self._again(lambda: self.study.set_user_attr(ELAPSED, round(max(seconds, self.elapsed()), 3)))

    def elapsed(self) -> float:
        """The wall seconds of all sessions so far."""
        return float(self._again(lambda: self.study.user_attrs.get(ELAPSED, 0.0)))

    def set_prefer(self, prefer: Prefer | None) -> None:
        """Keep what is recommended in the end; None keeps what it was."""
        if prefer is not None and self._again(lambda: self.study.user_attrs.get(PREFER)) != prefer:
            self._again(lambda: self.study.set_user_attr(PREFER, prefer))

    def set_accumulate(self, accumulate: bool) -> None:
        """Keep whether batches that memory does not hold are trained in micro-batches, for reports, too."""
        if self._again(lambda: self.study.user_attrs.get(ACCUMULATE, False)) != accumulate:
            self._again(lambda: self.study.set_user_attr(ACCUMULATE, accumulate))

    def add_machine(self, machine: Machine, engine: str, *, deterministic: bool = False) -> None:
        """Remember a machine, and how this study's program is trained on it."""
        self._how = {"engine": engine, "tensorflow": machine.versions.get("tensorflow", "")}
        if deterministic:
            self._how["deterministic"] = True
        self._put(lambda: self.records.add_machine(machine))
        self._set_entry(ENGINES, machine.fingerprint, engine)

    def add_measurements(
        self,
        key: MeasuredOn,
        memory_limit: int | None,
        step_times: Sequence[StepTime],
        memory: Sequence[MemoryRow],
        *,
        anew: bool = False,
    ) -> None:
        """Keep what a probe has found, and for what it holds; `anew` in the place of all that was known."""
        self._measured = (key, memory_limit)
        measurements = Measurements(self.db)
        if anew:
            self._again(lambda: measurements.forget(key, memory_limit))
        self._put(lambda: measurements.add_step_times(key, step_times))
        self._put(lambda: measurements.add_memory(key, memory_limit, memory))
        self._set_entry(MEMORY_LIMITS, key.machine, memory_limit)

    def add_memory(self, rows: Sequence[MemoryRow]) -> None:
        """Keep what a trial has found out about memory, on the machine that was measured."""
        if self._measured is not None:
            key, limit = self._measured
            self._put(lambda: Measurements(self.db).add_memory(key, limit, rows))

    def _count(self, but: Sequence[str]) -> int:
        trials = optunas_trials
        mine = sa.and_(trials.c.study_id == study_id_of(self.study), trials.c.state.not_in(but))
        query = sa.select(sa.func.count()).select_from(trials).where(mine)

        def count() -> int:
            with self.db.connect() as connection:
                return connection.execute(query).scalar_one()

        return self._again(count)

    def _put(self, operation: Callable[[], None]) -> None:
        """Put rows in the place of others, again where another process on this machine has just put the same."""

        def put() -> None:
            for _ in range(TOGETHER):
                with suppress(sa.exc.IntegrityError):
                    operation()
                    return
            operation()

        self._again(put)

    def _set_entry(self, attribute: str, machine: str, value: str | int | None) -> None:
        """Write a machine's entry of an attribute; those of machines that join in the same moment stay."""

        def put() -> None:
            if self.study.user_attrs.get(attribute, {}).get(machine) != value:
                with self.db.begin() as connection:
                    put_entry(connection, study_id_of(self.study), attribute, machine, value)

        self._again(put)

    def _again(self, operation: Callable[[], T]) -> T:
        return self.transactions.again(operation)
