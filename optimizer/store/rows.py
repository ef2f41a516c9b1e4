"""A study as the rows of its tables, Optuna's and ours, apart from the ids that tie them together in one database.

Each database numbers studies and trials for itself, so a row is read without its ids and written with those of its new
place. What a trial is called everywhere is its GUID, a user attribute: written when the trial begins, or derived from
how it began where another program, or an earlier version, has begun it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from optimizer.store.history import GUID
from optimizer.store.tables import (
    checkpoints_table,
    confirmations_table,
    epochs_table,
    leases_table,
    metadata,
    optunas_user_attributes,
)

STUDIES, TRIALS = "studies", "trials"
USER_ATTRIBUTES, SYSTEM_ATTRIBUTES = optunas_user_attributes.name, "trial_system_attributes"
STUDY_USER_ATTRIBUTES, STUDY_SYSTEM_ATTRIBUTES = "study_user_attributes", "study_system_attributes"
PARAMS, VALUES, CURVE = "trial_params", "trial_values", "trial_intermediate_values"
EPOCHS, CHECKPOINTS, CONFIRMATIONS = epochs_table.name, checkpoints_table.name, confirmations_table.name

OF_STUDY = ("study_directions", STUDY_USER_ATTRIBUTES, STUDY_SYSTEM_ATTRIBUTES, CONFIRMATIONS)
"""The tables with rows of a study; those with rows of its trials are `OF_TRIAL`."""

OF_TRIAL = (USER_ATTRIBUTES, SYSTEM_ATTRIBUTES, PARAMS, VALUES, CURVE, EPOCHS, CHECKPOINTS)

HEARTBEATS = "trial_heartbeats"

NOT_COPIED = (HEARTBEATS, "batchopt_leases", "batchopt_turns")
"""Who works on a trial now does so in the database that was copied, not in the copy."""

CHUNK = 500
"""Rows of one statement; SQL databases bound the number of its parameters."""

FINISHED = ("COMPLETE", "PRUNED", "FAIL")

Row = dict[str, Any]


@dataclass(frozen=True)
class TrialRows:
    """A trial.

    Attributes:
        trial_id: in the database it was read from.
        number: Optuna's.
        row: of the table of trials.
        rows: of the tables of `OF_TRIAL`.
        guid_written: whether its GUID was in the database, and not derived.
    """

    trial_id: int
    number: int
    row: Row
    rows: Mapping[str, list[Row]]
    guid_written: bool

    @property
    def attributes(self) -> dict[str, Any]:
        """Its user attributes."""
        return _attributes(self.rows[USER_ATTRIBUTES])

    @property
    def guid(self) -> str:
        return str(self.attributes[GUID])

    @property
    def state(self) -> str:
        return str(self.row["state"])

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def asked(self) -> str:
        """The parameters that it was queued with, as text; empty where it was not queued."""
        return str(dict(_pairs(self.rows[SYSTEM_ATTRIBUTES])).get("fixed_params", ""))

    @property
    def outcome(self) -> dict[str, list[Row]]:
        """What training it came to."""
        return {name: self.rows[name] for name in (PARAMS, VALUES, CURVE, EPOCHS)}

    @property
    def progress(self) -> tuple[bool, int, int]:
        """How far it is; of two copies, the greater one is further."""
        kept = max((row["epoch"] for row in self.rows[CHECKPOINTS]), default=0)
        return self.finished, len(self.rows[EPOCHS]) or len(self.rows[CURVE]), kept


@dataclass(frozen=True)
class StudyRows:
    """A study: its id where it was read, its rows of the tables of `OF_STUDY`, its trials by number."""

    study_id: int
    name: str
    rows: Mapping[str, list[Row]]
    trials: list[TrialRows]

    def attribute(self, key: str) -> Any:
        """A user attribute; None where there is none."""
        return _attributes(self.rows[STUDY_USER_ATTRIBUTES]).get(key)


class Rows:
    """The tables of one database, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._there = set(sa.inspect(connection).get_table_names())
        found = sa.MetaData()
        sa.event.listen(found, "column_reflect", _as_float)
        wanted = (STUDIES, TRIALS, HEARTBEATS, *OF_STUDY, *OF_TRIAL)
        found.reflect(connection, only=[name for name in wanted if name in self._there])
        # What an older version has not made yet is empty.
        self._columns = {name: set(table.c.keys()) for name, table in found.tables.items()}
        # Ours know their types better than a database can say.
        ours = {name: table for name, table in metadata.tables.items() if name in self._there}
        self._tables: dict[str, sa.Table] = {**found.tables, **ours}

    def names(self) -> list[str]:
        """The names of all studies."""
        table = self._tables[STUDIES]
        return sorted(self._connection.execute(sa.select(table.c.study_name)).scalars())

    def read(self, name: str) -> StudyRows:
        """A study that is there."""
        studies, trials = self._tables[STUDIES], self._tables[TRIALS]
        key = self._connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).scalar_one()
        found = self._connection.execute(sa.select(trials).where(trials.c.study_id == key).order_by(trials.c.number))
        heads = [dict(row) for row in found.mappings()]
        ids = [head["trial_id"] for head in heads]
        by_table = {table: self._by_parent(table, "trial_id", ids) for table in OF_TRIAL}
        study = StudyRows(
            study_id=key,
            name=name,
            rows={table: self._by_parent(table, "study_id", [key])[key] for table in OF_STUDY},
            trials=[
                TrialRows(
                    trial_id=head["trial_id"],
                    number=head["number"],
                    row={column: head[column] for column in head if column not in ("trial_id", "study_id", "number")},
                    rows={table: by_table[table][head["trial_id"]] for table in OF_TRIAL},
                    guid_written=GUID in _attributes(by_table[USER_ATTRIBUTES][head["trial_id"]]),
                )
                for head in heads
            ],
        )
        _name_all(study)
        return study

    def lock(self, name: str) -> None:
        """Keep others from beginning trials of a study until this transaction ends."""
        studies = self._tables[STUDIES]
        query = sa.select(studies.c.study_id).where(studies.c.study_name == name).with_for_update()
        self._connection.execute(query)

    def add_study(self, study: StudyRows) -> int:
        """Write a study without its trials; returns its id here."""
        key = self._insert(STUDIES, {"study_name": study.name})
        for table in OF_STUDY:
            notes = table == STUDY_SYSTEM_ATTRIBUTES
            rows = [row for row in study.rows[table] if not (notes and note_of(row["key"]) is not None)]
            self.add_rows(table, rows, study_id=key)
        return key

    def add_trial(self, study_id: int, number: int, trial: TrialRows) -> int:
        """Write a trial under a number; returns its id here."""
        key = self._insert(TRIALS, {**self._fitting(trial.row), "study_id": study_id, "number": number})
        self._add_children(key, trial)
        return key

    def replace_trial(self, trial_id: int, trial: TrialRows) -> None:
        """Put a trial in the place of another, which keeps its id and number."""
        table = self._tables[TRIALS]
        values = self._fitting(trial.row)
        self._connection.execute(table.update().where(table.c.trial_id == trial_id).values(values))
        for name in (*OF_TRIAL, leases_table.name):
            child = self._tables[name]
            self._connection.execute(child.delete().where(child.c.trial_id == trial_id))
        self._add_children(trial_id, trial)

    def add_rows(self, table: str, rows: Sequence[Row], **ids: int) -> None:
        """Insert rows, with the ids of what they belong to."""
        values = [self._fitting(row) | ids for row in rows]
        for start in range(0, len(values), CHUNK):
            self._connection.execute(self._tables[table].insert(), values[start : start + CHUNK])

    def set_attribute(self, study_id: int, key: str, value: Any) -> None:
        """Write a user attribute of a study in the place of what it was."""
        table = self._tables[STUDY_USER_ATTRIBUTES]
        self._connection.execute(table.delete().where(table.c.study_id == study_id, table.c.key == key))
        self.add_rows(STUDY_USER_ATTRIBUTES, [{"key": key, "value_json": json.dumps(value)}], study_id=study_id)

    def all_of(self, table: sa.Table) -> list[Row]:
        """All rows of one of our own tables, their keys included."""
        if table.name not in self._tables:
            return []
        return [dict(row) for row in self._connection.execute(sa.select(table)).mappings()]

    def locations(self) -> list[str]:
        """The files that checkpoints name, of all studies and of none."""
        if "location" not in self._columns.get(CHECKPOINTS, ()):
            return []
        query = sa.select(checkpoints_table.c.location).where(checkpoints_table.c.location.is_not(None))
        return list(self._connection.execute(query).scalars())

    def set_checkpoints(self, study: StudyRows) -> None:
        """Make the checkpoints of a study those of its rows, which have the ids of this database."""
        for trial in study.trials:
            table = self._tables[CHECKPOINTS]
            self._connection.execute(table.delete().where(table.c.trial_id == trial.trial_id))
            self.add_rows(CHECKPOINTS, trial.rows[CHECKPOINTS], trial_id=trial.trial_id)

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return table in self._there

    def heartbeats(self) -> dict[int, datetime.datetime]:
        """When the programs that beat have last done so, in UTC, by trial id."""
        table = self._tables[HEARTBEATS]
        return {row.trial_id: row.heartbeat for row in self._connection.execute(sa.select(table))}

    def end(self, trial_id: int, state: str) -> None:
        """End a trial that is not this program's."""
        table = self._tables[TRIALS]
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        row = self._fitting({"state": state, "datetime_complete": now})
        running = sa.and_(table.c.trial_id == trial_id, table.c.state == "RUNNING")
        self._connection.execute(table.update().where(running).values(row))

    def clear(self, table: str) -> None:
        """Remove all rows of a table, where there is such a table."""
        if self.has(table):
            self._connection.execute(sa.delete(sa.table(table)))

    def _add_children(self, trial_id: int, trial: TrialRows) -> None:
        for table in OF_TRIAL:
            self.add_rows(table, trial.rows[table], trial_id=trial_id)

    def _insert(self, table: str, values: Row) -> int:
        done = self._connection.execute(self._tables[table].insert().values(**values))
        key = done.inserted_primary_key
        assert key is not None
        return int(key[0])

    def _fitting(self, row: Row) -> Row:
        """A row as this database can hold it: MySQL keeps times to the second, and would round them itself."""
        if self._connection.dialect.name not in ("mysql", "mariadb"):
            return dict(row)
        return {name: canonical(value) for name, value in row.items()}

    def _by_parent(self, name: str, parent: str, ids: Iterable[int]) -> dict[int, list[Row]]:
        """The rows of a table by the id of what they belong to, without their ids."""
        found: dict[int, list[Row]] = defaultdict(list)
        if name not in self._tables:
            return found
        table, keys = self._tables[name], list(ids)
        # A number that only counts the rows of this table says nothing elsewhere.
        counts = [column.name for column in table.primary_key if len(table.primary_key) == 1 and column.name != parent]
        columns = [c for c in table.c if c.name not in counts and c.name in self._columns.get(name, table.c.keys())]
        # As they will be where tables are of this version.
        later = {c.name: None for c in table.c if c not in columns and c.name not in counts}
        for start in range(0, len(keys), CHUNK):
            query = sa.select(*columns).where(table.c[parent].in_(keys[start : start + CHUNK]))
            for row in self._connection.execute(query).mappings():
                found[row[parent]].append(later | {key: value for key, value in row.items() if key != parent})
        for rows in found.values():
            rows.sort(key=as_text)
        return found


def digest(trial: TrialRows) -> str:
    """SHA-256 of all that a trial is, wherever it is kept; its number left out."""
    return hashlib.sha256(as_text({"row": trial.row, **trial.rows}).encode()).hexdigest()


def as_text(value: Any) -> str:
    """A row, or rows, as text that is the same in every database; bytes as their SHA-256."""
    return json.dumps(value, sort_keys=True, default=_plain)


def canonical(value: Any) -> Any:
    """A value as every database can hold it."""
    return value.replace(microsecond=0) if isinstance(value, datetime.datetime) else value


def note_of(key: str) -> int | None:
    """The id of the trial that one of optuna-dashboard's notes is on; None for any other attribute of a study."""
    first, _, rest = key.partition(":")
    number, _, what = rest.partition(":")
    return int(number) if first == "dashboard" and number.isdigit() and what.startswith("note") else None


def _name_all(study: StudyRows) -> None:
    """Give a GUID to the trials without one: the same for every copy of such a trial."""
    alike: Counter[str] = Counter()
    for trial in study.trials:
        if trial.guid_written:
            continue
        began = [study.name, trial.row["datetime_start"], trial.rows[PARAMS], trial.asked]
        name = hashlib.sha256(as_text(began).encode()).hexdigest()[:32]
        alike[name] += 1
        if alike[name] > 1:
            name = hashlib.sha256(f"{name} {alike[name]}".encode()).hexdigest()[:32]
        trial.rows[USER_ATTRIBUTES].append({"key": GUID, "value_json": json.dumps(name)})
        trial.rows[USER_ATTRIBUTES].sort(key=as_text)


def _as_float(inspector: Any, table: sa.Table, column: Any) -> None:
    """MySQL's doubles would come back as decimals, rounded."""
    if isinstance(column["type"], sa.Float | sa.Numeric):
        column["type"] = sa.Double()


def _attributes(rows: Iterable[Row]) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in _pairs(rows)}


def _pairs(rows: Iterable[Row]) -> list[tuple[str, str]]:
    return [(row["key"], row["value_json"]) for row in rows]


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return str(canonical(value))
