"""The tables of studies in one database, read and written as rows without their ids (`copies.py`)."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from batchopt.store.attributes import GUID
from batchopt.store.records import DamagedCheckpoint
from batchopt.store.tables import checkpoints_table, leases_table, metadata
from batchopt.store.transfer.study_rows import (
    CHECKPOINTS,
    OF_STUDY,
    OF_TRIAL,
    STUDIES,
    STUDY_SYSTEM_ATTRIBUTES,
    STUDY_USER_ATTRIBUTES,
    TRIALS,
    USER_ATTRIBUTES,
    Content,
    Row,
    StudyRows,
    TrialRows,
    as_text,
    attributes_of,
    canonical,
    name_all,
    note_of,
)

HEARTBEATS = "trial_heartbeats"

NOT_COPIED = (HEARTBEATS, "batchopt_leases", "batchopt_turns")
"""Who works on a trial now does so in the database that was copied, not in the copy."""

CHUNK = 500
"""Rows of one statement; SQL databases bound the number of its parameters."""


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
        for trial_id, checkpoints in by_table[CHECKPOINTS].items():
            for row in checkpoints:
                row["content"] = self._content(trial_id)
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
                    guid_written=GUID in attributes_of(by_table[USER_ATTRIBUTES][head["trial_id"]]),
                )
                for head in heads
            ],
        )
        name_all(study)
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
            self._add_checkpoints(trial.trial_id, trial)

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
            if table != CHECKPOINTS:
                self.add_rows(table, trial.rows[table], trial_id=trial_id)
        self._add_checkpoints(trial_id, trial)

    def _add_checkpoints(self, trial_id: int, trial: TrialRows) -> None:
        """Write a trial's checkpoint; the trial has none any more where its file has vanished meanwhile.

        A study that goes on replaces it after each epoch.
        """
        rows = trial.rows[CHECKPOINTS]
        for row in list(rows):
            try:
                self.add_rows(CHECKPOINTS, [row], trial_id=trial_id)
            except DamagedCheckpoint:
                rows.remove(row)

    def _insert(self, table: str, values: Row) -> int:
        done = self._connection.execute(self._tables[table].insert().values(**values))
        key = done.inserted_primary_key
        assert key is not None
        return int(key[0])

    def _content(self, trial_id: int) -> Content:
        """The bytes of a trial's checkpoint, looked at once; none where another process has removed it meanwhile."""
        query = sa.select(checkpoints_table.c.content).where(checkpoints_table.c.trial_id == trial_id)

        def read() -> bytes:
            return self._connection.scalar(query) or b""

        return Content(hashlib.sha256(read()).hexdigest(), read)

    def _fitting(self, row: Row) -> Row:
        """A row as this database can hold it: MySQL keeps times to the second, and would round them itself."""
        row = {name: value.read() if isinstance(value, Content) else value for name, value in row.items()}
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
        counts += ["content"] if name == CHECKPOINTS else []
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


def _as_float(inspector: Any, table: sa.Table, column: Any) -> None:
    """MySQL's doubles would come back as decimals, rounded."""
    if isinstance(column["type"], sa.Float | sa.Numeric):
        column["type"] = sa.Double()
