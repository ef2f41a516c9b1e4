"""Rows that are not what any program of ours, or Optuna, writes: found by what their tables declare of each column.

SQLite keeps whatever it is given in whatever column, and a flipped bit makes a word of none. Such a row is named, so
that nobody has to guess it from where a program happens to stumble over it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution

from batchopt.measured import LARGEST_VALUE
from batchopt.optuna_private import OPTUNAS_TABLES
from batchopt.question.task import MOST_EPOCHS
from batchopt.store.attributes import ACCUMULATE, ATTRIBUTE, DEATHS, ELAPSED, ENGINES, GUID, MEMORY_LIMITS
from batchopt.store.stamp import Stamp
from batchopt.store.tables import (
    PREFIX,
    confirmations_table,
    epochs_table,
    machines_table,
    memory_table,
    metadata,
    step_times_table,
)
from batchopt.text import first_line, printable

ABSENT = {"value", "intermediate_value", "datetime_start", "datetime_complete"}
"""Columns of Optuna's in which NULL says something; its tables declare many others so that are never NULL."""

SHOWN = 40
"""Letters of a value that are shown."""

LARGEST = 1e15
"""Beyond any figure of ours, but for those that a model gives."""

OF_A_MODEL = re.compile(r"loss$|value$|^sq_norm")
"""Columns of such: while it diverges they may be as large as `LARGEST_VALUE`."""

STUMBLES = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, AssertionError, RecursionError)
"""What a program raises that finds something else in a row than it must hold."""


@dataclass(frozen=True)
class DamagedRow:
    """A row, and what is wrong with it.

    Attributes:
        table: its table.
        key: its primary key.
        column: where it is wrong.
        why: what stands there, and what does not fit.
    """

    table: str
    key: Mapping[str, Any]
    column: str
    why: str

    def __str__(self) -> str:
        key = ", ".join(f"{name} {printable(value)}" for name, value in self.key.items())
        return f"the row of {key} in table {self.table} is damaged: its {self.column} {self.why}"


def damaged_rows(connection: sa.Connection) -> Iterator[DamagedRow]:
    """All of them, in Optuna's tables and ours."""
    there = set(sa.inspect(connection).get_table_names())
    tables = {**OPTUNAS_TABLES, **metadata.tables}
    for name, table in tables.items():
        if name in there:
            yield from _in_table(connection, table)
    yield from _without_values(connection)


def _in_table(connection: sa.Connection, table: sa.Table) -> Iterator[DamagedRow]:
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    # A server holds bytes where they are declared, and would send all of them at once.
    sent = connection.dialect.name != "sqlite"
    columns = [
        column for column in table.c if column.name in there and not (sent and isinstance(column.type, sa.LargeBinary))
    ]
    # As they are kept: a type that is declared would already stumble.
    plain = sa.table(table.name, *(sa.column(column.name) for column in columns))
    raw = sa.select(plain)
    for row in connection.execute(raw).mappings():
        key = {column.name: row[column.name] for column in table.primary_key}
        wrong = False
        for column in columns:
            why = _wrong(column, row[column.name], connection.dialect)
            if why:
                wrong = True
                yield DamagedRow(table.name, key, column.name, f"is {_shown(row[column.name])}, {why}")
        check = OF_ROWS.get(table.name)
        if check is not None and not wrong:
            for column_name, why in check(dict(row)):
                yield DamagedRow(table.name, key, column_name, f"is {_shown(row[column_name])}: {why}")


def _wrong(column: sa.Column[Any], value: Any, dialect: sa.Dialect) -> str:
    """Why a value cannot stand in a column; empty where it can."""
    ours = column.table.name.startswith(PREFIX)
    if value is None:
        return "" if (column.nullable if ours else column.name in ABSENT) else "and must be something"
    kind = column.type
    if isinstance(kind, sa.Enum):
        return "" if str(getattr(value, "name", value)) in kind.enums else f"and not one of {', '.join(kind.enums)}"
    if isinstance(kind, sa.JSON) or column.name.endswith("_json"):
        return _no_json(value)
    if isinstance(kind, sa.DateTime):
        return _no_time(value)
    fits: tuple[type, ...] = (str,)
    if isinstance(kind, sa.Boolean):
        return "" if value in (0, 1) and not isinstance(value, str) else "and not 0 or 1"
    if isinstance(kind, sa.Integer):
        fits = (int,)
    elif isinstance(kind, sa.Float):
        fits = (int, float)
    elif isinstance(kind, sa.LargeBinary):
        fits = (bytes, memoryview)
    if not isinstance(value, fits):
        return f"and not {_named(kind)}"
    if isinstance(kind, sa.Float) and ours and isinstance(value, int | float):
        most = LARGEST_VALUE if OF_A_MODEL.search(column.name) else LARGEST
        return "" if abs(value) <= most else "which nothing takes"
    return ""


def _no_json(value: Any) -> str:
    if not isinstance(value, str):
        # A server has read it already.
        return "" if isinstance(value, dict | list) else "and not JSON"
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return "and not JSON"
    return ""


def _no_time(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return ""
    try:
        datetime.datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return "and not a time"
    return ""


def _named(kind: Any) -> str:
    words = {sa.Integer: "a whole number", sa.Float: "a number", sa.LargeBinary: "bytes"}
    return next((word for of, word in words.items() if isinstance(kind, of)), "text")


def _shown(value: Any) -> str:
    said = "NULL" if value is None else printable(repr(value))
    return said if len(said) <= SHOWN else f"{said[:SHOWN]}..."


def _param(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    try:
        distribution = json_to_distribution(row["distribution_json"])
    except STUMBLES as error:
        yield "distribution_json", f"no distribution ({first_line(error)})"
        return
    try:
        if not distribution._contains(row["param_value"]):
            yield "param_value", "outside of its distribution"
        distribution.to_external_repr(row["param_value"])
    except STUMBLES:
        yield "param_value", "outside of its distribution"


def _value(row: Mapping[str, Any], value: str) -> Iterator[tuple[str, str]]:
    finite = str(getattr(row[f"{value}_type"], "name", row[f"{value}_type"])) == "FINITE"
    if finite != (row[value] is not None):
        yield value, f"which does not go with its type, {row[f'{value}_type']}"


def _text_of(value: Any) -> bool:
    return isinstance(value, str)


def _amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _entries(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(fits(entry) for entry in value.values())


def _is_stamp(value: Any) -> bool:
    Stamp.of(value)
    return True


OF_ATTRIBUTES: dict[str, Callable[[Any], bool]] = {
    ATTRIBUTE: _is_stamp,
    ELAPSED: _amount,
    ENGINES: lambda value: _entries(value, _text_of),
    ACCUMULATE: lambda value: isinstance(value, bool),
    MEMORY_LIMITS: lambda value: _entries(value, lambda limit: limit is None or _amount(limit)),
    GUID: _text_of,
    DEATHS: lambda value: _entries(value, _amount) and value.keys() == {"epochs", "deaths"},
    "fixed_params": lambda value: isinstance(value, dict),
    "study:metric_names": lambda value: isinstance(value, list) and all(map(_text_of, value)),
}
"""What the attributes are that we read; others are anybody's."""


def _attribute(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    key, value = row["key"], json.loads(row["value_json"])
    fits = _amount if key.startswith("constraints:") else OF_ATTRIBUTES.get(key)
    try:
        if fits is None or fits(value):
            return
        why = f"no value of {printable(key)!r}"
    except Exception as error:  # noqa: BLE001  it may be anything, and whatever refuses it says why
        why = f"no value of {printable(key)!r} ({first_line(error)})"
    yield "value_json", why


def _machine(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = row["description"]
    found = json.loads(found) if isinstance(found, str) else found
    texts, numbers = ("device", "kind", "processor"), ("cores", "memory_bytes")
    if not (
        isinstance(found, dict)
        and all(_text_of(found.get(name)) for name in texts)
        and all(_amount(found.get(name)) for name in numbers)
        and _amount(found.get("device_memory_bytes", 0))
        and (found.get("max_power_w") is None or _amount(found["max_power_w"]))
        and all(isinstance(found.get(name, ""), str) for name in ("energy", "no_energy"))
        and isinstance(found.get("versions"), dict)
    ):
        yield "description", "no machine"


LEAST = {
    epochs_table.name: {
        "epoch": 1,
        "steps": 1,
        "train_seconds": 0,
        "examples_per_second": 0,
        "joules": 0,
        "noise_small": 1,
        "noise_big": 1,
        "sq_norm_small": 0,
        "sq_norm_big": 0,
    },
    step_times_table.name: {"batch_size": 1, "step_time_s": 0, "spread_s": 0, "count": 1},
    memory_table.name: {"batch_size": 1},
    confirmations_table.name: {"batch_size": 1, "learning_rate": 0, "epochs": 1, "train_seconds": 0},
}
"""Below these no figure of ours is."""


def _figures(table: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, least in LEAST[table].items():
        if row[name] is not None and row[name] < least:
            yield name, f"below {least}"
    if table == epochs_table.name and row["epoch"] > MOST_EPOCHS:
        yield "epoch", "beyond any study"


OF_ROWS: dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]] = {
    "trial_params": _param,
    "trial_values": lambda row: _value(row, "value"),
    "trial_intermediate_values": lambda row: (
        iter(()) if row["intermediate_value_type"] in ("NAN",) else _value(row, "intermediate_value")
    ),
    **dict.fromkeys(
        ("study_user_attributes", "study_system_attributes", "trial_user_attributes", "trial_system_attributes"),
        _attribute,
    ),
    machines_table.name: _machine,
    **{table: partial(_figures, table) for table in LEAST},
}
"""What the columns of a row must be together, once each of them can be what it is."""


def _without_values(connection: sa.Connection) -> Iterator[DamagedRow]:
    """Complete trials, and studies, that lack what Optuna writes with them."""
    studies, trials, values, directions = (
        OPTUNAS_TABLES[name].c for name in ("studies", "trials", "trial_values", "study_directions")
    )
    wanted = sa.select(sa.func.count()).where(directions.study_id == trials.study_id).scalar_subquery()
    found = sa.select(sa.func.count()).where(values.trial_id == trials.trial_id).scalar_subquery()
    complete = sa.cast(trials.state, sa.String) == "COMPLETE"
    for (trial_id,) in connection.execute(sa.select(trials.trial_id).where(complete, found != wanted)):
        yield DamagedRow("trials", {"trial_id": trial_id}, "state", "is COMPLETE, and its values are not there")
    of_none = sa.select(values.trial_value_id, values.objective).join_from(
        values.trial_id.table, trials.trial_id.table, values.trial_id == trials.trial_id
    )
    for value_id, objective in connection.execute(of_none.where((values.objective < 0) | (values.objective >= wanted))):
        why = f"is {objective}, and its study has fewer"
        yield DamagedRow("trial_values", {"trial_value_id": value_id}, "objective", why)
    directed = sa.select(directions.study_direction_id).where(directions.study_id == studies.study_id).exists()
    for (study_id,) in connection.execute(sa.select(studies.study_id).where(~directed)):
        yield DamagedRow("studies", {"study_id": study_id}, "direction", "is not there")
