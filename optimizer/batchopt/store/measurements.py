"""What probes have measured, by machine, program and engine, so that no machine is probed twice for one program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from batchopt.machine.machine import Machine
from batchopt.measured import EngineName, MemoryRow, StepTime
from batchopt.question.task import ProgramStamp
from batchopt.store.records import replace_row
from batchopt.store.tables import machines_table, memory_table, step_times_table


@dataclass(frozen=True)
class MeasuredOn:
    """What a measurement holds for.

    Attributes:
        machine: the machine's fingerprint.
        program: the program's fingerprint, of model and data.
        engine: how epochs are run.
    """

    machine: str
    program: str
    engine: EngineName


def measured_on(machine: Machine, program: ProgramStamp, engine: EngineName) -> MeasuredOn:
    """The key of what is measured with this program on this machine."""
    return MeasuredOn(machine.fingerprint, program_fingerprint(asdict(program)), engine)


def program_fingerprint(program: Mapping[str, object]) -> str:
    """The name of a program, described as a study's stamp does; the same whatever the versions that trained it."""
    lasting = {name: value for name, value in program.items() if name not in ("form", "made_with")}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


class Measurements:
    """The tables of step times and of memory."""

    def __init__(self, db: Engine) -> None:
        self._db = db

    def kept(self) -> bool:
        """Whether the database has what measurements are kept in: Optuna's own has not, nor one that is being made."""
        there = set(sa.inspect(self._db).get_table_names())
        return there >= {table.name for table in (machines_table, memory_table, step_times_table)}

    def forget(self, key: MeasuredOn, memory_limit: int | None) -> None:
        """Forget what was measured: it is measured anew."""
        with self._db.begin() as connection:
            connection.execute(step_times_table.delete().where(*_match(step_times_table, asdict(key))))
            where = asdict(key) | {"memory_limit": memory_limit or 0}
            connection.execute(memory_table.delete().where(*_match(memory_table, where)))

    def add_step_times(self, key: MeasuredOn, rows: Sequence[StepTime]) -> None:
        """Keep step times in the place of earlier ones of the same batch sizes."""
        with self._db.begin() as connection:
            for row in rows:
                replace_row(connection, step_times_table, asdict(key) | {"batch_size": row.batch_size}, asdict(row))

    def step_times(self, key: MeasuredOn) -> list[StepTime]:
        """The step times that were measured, by batch size.

        Raises:
            ValueError: a row is none.
        """
        names = [field.name for field in fields(StepTime)]
        rows = [StepTime(**{name: row[name] for name in names}) for row in self._rows(step_times_table, asdict(key))]
        if any(row.batch_size < 1 or row.step_time_s < 0 for row in rows):
            raise ValueError("a step time of no batch size, or below zero")
        return rows

    def add_memory(self, key: MeasuredOn, memory_limit: int | None, rows: Sequence[MemoryRow]) -> None:
        """Keep what is known of memory under a limit; None for no limit."""
        with self._db.begin() as connection:
            for row in rows:
                where = asdict(key) | {"memory_limit": memory_limit or 0, "batch_size": row.batch_size}
                replace_row(connection, memory_table, where, asdict(row))

    def memory(self, key: MeasuredOn, memory_limit: int | None) -> list[MemoryRow]:
        """What is known of memory under a limit, by batch size."""
        rows = self._rows(memory_table, asdict(key) | {"memory_limit": memory_limit or 0})
        return [MemoryRow(row["batch_size"], row["step_bytes"], row["fits"]) for row in rows]

    def _rows(self, table: sa.Table, where: dict[str, object]) -> Sequence[sa.RowMapping]:
        query = sa.select(table).order_by(table.c.batch_size)
        with self._db.connect() as connection:
            return connection.execute(query.where(*_match(table, where))).mappings().all()


def _match(table: sa.Table, key: dict[str, object]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key.items()]
