"""Studies from database to database: exported whole, or joined with what another database has of them.

Inputs are read in one transaction and not changed. What is written is read again and compared before it is kept, and a
new file appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batchopt.errors import InvalidInput, StorageError, StorageNotFound, StudyNotFound
from batchopt.store.access import is_file, path_of, reading, same_place, writing
from batchopt.store.address import shown_storage, storage_url
from batchopt.store.attributes import ATTRIBUTE, ENGINES
from batchopt.store.database import check_storage, open_database
from batchopt.store.folders import Folders
from batchopt.store.measurements import program_fingerprint
from batchopt.store.records import DamagedCheckpoint
from batchopt.store.tables import machines_table, memory_table, step_times_table
from batchopt.store.transfer.merging import Joined, Progress, join
from batchopt.store.transfer.rows import NOT_COPIED, Rows
from batchopt.store.transfer.study_rows import CHECKPOINTS, CONFIRMATIONS, EPOCHS, StudyRows, as_text, digest, whole
from batchopt.text import first_line

PAGES = 1000
"""Of one step of SQLite's backup, between two words of how far it is."""


@dataclass(frozen=True)
class Transferred:
    """What an export or a merge has done, verified.

    Attributes:
        to: where the studies are now.
        studies: each one's `name`; how many `trials`, `epochs` and `checkpoints` it has now; how many trials were
            `added`, further trained (`continued`) or `known`; `conflicts`, a sentence each; what was `left` behind,
            the same; `sha256` of all its trials.
    """

    to: str
    studies: list[dict[str, Any]]

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def silent(text: str) -> None:
    """Say nothing of how far it is."""


def export(
    storage: str, to: str, study: str | None = None, *, checkpoints: str | None = None, progress: Progress = silent
) -> Transferred:
    """Copy one study, or all, to a new SQLite file or another database.

    Args:
        storage: where they are: a path or an SQLAlchemy URL.
        to: where to, the same.
        study: the one to copy; all where None.
        checkpoints: a folder of checkpoints' files beside the one that lies beside the database, as `--checkpoints`.
        progress: told how far it is.

    Raises:
        StorageError: there is nothing to copy, or something in the way; nothing was written then.
    """
    _check_apart([storage], to)
    with reading(storage) as connection:
        names = _chosen(Rows(connection), study)
        if not names:
            missing = "no study" if study is None else f"no study {study!r}"
            raise StudyNotFound(f"database {shown_storage(storage)} holds {missing}. Check --storage and --study.")
        if is_file(to) and path_of(to).exists():
            raise StorageError(
                f"{path_of(to)} exists already. Choose another --to, or use batchopt merge to join them."
            )
        if taken := sorted(set(names) & set(_names_at(to))):
            raise StorageError(
                f"database {shown_storage(to)} holds a study {taken[0]!r} already. Choose another --to, or use "
                "batchopt merge to join them."
            )
        if is_file(to) and is_file(storage) and study is None:
            folders = Folders(storage_url(storage), checkpoints)
            return _made_new(to, lambda file: _copy_file(connection, folders, file, progress))
    return merge([storage], to, study, checkpoints=checkpoints, progress=progress)


def merge(
    storages: Sequence[str],
    to: str,
    study: str | None = None,
    *,
    checkpoints: str | None = None,
    progress: Progress = silent,
) -> Transferred:
    """Join the studies of several databases by name, and their trials by GUID.

    Args:
        storages: the databases. A trial keeps its number in the first of them that has it.
        to: where to: a new file or database, or one that holds some of the studies, and then comes first.
        study: the one to join; all where None.
        checkpoints: as for `export`.
        progress: told how far it is.

    Raises:
        StorageError: a database cannot be read or written.
        StudyMismatch: two studies of one name ask different questions. Nothing was written in either case.
    """
    _check_apart(storages, to)
    # Every input is looked at before anything is made.
    found = [_names_at(storage, needed=True) for storage in storages]
    if not any(names if study is None else study in names for names in found):
        missing = "a study" if study is None else f"a study {study!r}"
        raise StudyNotFound(f"none of the databases holds {missing}. Check --study.")
    if is_file(to) and not path_of(to).exists():
        return _made_new(to, lambda file: _join_all(storages, file, study, checkpoints, progress))
    return _join_all(storages, to, study, checkpoints, progress)


def _check_apart(storages: Sequence[str], to: str) -> None:
    for storage in storages:
        if same_place(storage, to):
            raise InvalidInput(
                f"--to {shown_storage(to)} is one of the databases to read; name another, or leave it out of them."
            )


def _names_at(storage: str, *, needed: bool = False) -> list[str]:
    """The names of a database's studies; none where it is not there and not `needed`."""
    try:
        with reading(storage) as connection:
            return Rows(connection).names()
    except StorageNotFound:
        if needed:
            raise
        return []


def _chosen(rows: Rows, study: str | None) -> list[str]:
    return [name for name in rows.names() if study in (None, name)]


def _made_new(to: str, make: Callable[[str], Transferred]) -> Transferred:
    """Make a file beside its place, and move it there when it is whole."""
    check_storage(to, create=True)
    target = path_of(to)
    with tempfile.TemporaryDirectory(prefix=".batchopt-", dir=target.parent) as folder:
        file = Path(folder, "studies.db")
        done = make(str(file))
        with closing(sqlite3.connect(file)) as connection:
            _check_whole(connection, to)
        try:
            # Unlike renaming it never takes the place of another file.
            os.link(file, target)
        except FileExistsError:
            raise StorageError(
                f"{target} has appeared in the meantime; it is left as it is. Choose another --to."
            ) from None
        except OSError:
            # Not every file system has hard links.
            file.rename(target)
    return Transferred(shown_storage(to), done.studies)


def _check_whole(connection: sqlite3.Connection, to: str) -> None:
    try:
        found = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        # Its last line says more than its first, which names the database.
        why = first_line(found.splitlines()[-1])
        raise StorageError(f"{shown_storage(to)} would not be whole: {why}. Nothing was written.")


def _copy_file(source: sa.Connection, folders: Folders, file: str, progress: Progress) -> Transferred:
    """A whole SQLite file through SQLite's own backup, other programs' tables included."""
    copy_pages(source, file, progress)
    # Brings tables of an earlier version to this one.
    open_database(file, create=True).db.dispose()
    expected = Rows(source)
    with writing(file) as connection:
        copied = Rows(connection)
        for table in NOT_COPIED:
            copied.clear(table)
        joined = {}
        for name in expected.names():
            study = expected.read(name)
            left = make_portable(study, folders)
            copied.set_checkpoints(study)
            joined[name] = _all_written(study, left)
        return _verified(copied, joined, file)


def copy_pages(source: sa.Connection, file: str, progress: Progress = silent) -> None:
    """Copy a whole SQLite file, as it is in a transaction that has begun, to a new one."""
    raw = source.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)

    def say(status: int, remaining: int, total: int) -> None:
        progress(f"{total - remaining} of {total} pages")

    with closing(sqlite3.connect(file)) as copy:
        raw.backup(copy, pages=PAGES, progress=say)


def make_portable(study: StudyRows, folders: Folders) -> list[str]:
    """Make a study of a database as if no checkpoint lay in a file.

    Returns:
        Which checkpoints stay behind, because their files cannot be read: a sentence each.
    """
    left = []
    for trial in study.trials:
        rows = trial.rows[CHECKPOINTS]
        for row in [row for row in rows if row["location"]]:
            try:
                row["content"], row["location"] = whole(row, folders), None
            except DamagedCheckpoint as damage:
                rows.remove(row)
                left.append(f"the checkpoint of trial {trial.number}, which starts over when it is taken up: {damage}")
    return left


def _all_written(study: StudyRows, left: list[str]) -> Joined:
    written = {trial.guid: digest(trial) for trial in study.trials}
    confirmations = {as_text(row) for row in study.rows[CONFIRMATIONS]}
    return Joined(study.name, added=len(written), left=left, written=written, confirmations=confirmations)


def _join_all(
    storages: Sequence[str], to: str, study: str | None, checkpoints: str | None, progress: Progress
) -> Transferred:
    open_database(to, create=True).db.dispose()
    joined: dict[str, Joined] = {}
    with writing(to) as connection:
        target = Rows(connection)
        for storage in storages:
            with reading(storage) as source_connection:
                source = Rows(source_connection)
                for name in _chosen(source, study):
                    rows, done = source.read(name), joined.setdefault(name, Joined(name))
                    done.left += make_portable(rows, Folders(storage_url(storage), checkpoints))
                    join(rows, target, shown_storage(storage), done, progress)
                    _join_measurements(rows, source, target)
        return _verified(target, joined, to)


def _join_measurements(study: StudyRows, source: Rows, target: Rows) -> None:
    """What is known of the machines of a study, and of its program on them; what the target knows already stays."""
    stamp = study.attribute(ATTRIBUTE)
    if stamp is None:
        return
    machines = {row["machine"] for trial in study.trials for row in trial.rows[EPOCHS]}
    machines |= set(study.attribute(ENGINES) or {})
    program = program_fingerprint(stamp["program"])
    for table in (machines_table, step_times_table, memory_table):
        key = [column.name for column in table.primary_key]
        known = {tuple(row[name] for name in key) for row in target.all_of(table)}
        rows = [
            row
            for row in source.all_of(table)
            if (row["fingerprint"] in machines if table is machines_table else row["program"] == program)
            and tuple(row[name] for name in key) not in known
        ]
        target.add_rows(table.name, rows)


def _verified(target: Rows, joined: dict[str, Joined], to: str) -> Transferred:
    """Read again what was written, and compare.

    Raises:
        StorageError: something is missing, twice, or not what was written.
    """
    studies = []
    for name, done in sorted(joined.items()):
        study = target.read(name)
        digests = {trial.guid: digest(trial) for trial in study.trials}
        wrong = [guid for guid, expected in done.written.items() if digests.get(guid) != expected]
        numbered = [trial.number for trial in study.trials] == list(range(len(study.trials)))
        confirmed = {as_text(row) for row in study.rows[CONFIRMATIONS]} == done.confirmations
        if wrong or not numbered or len(digests) != len(study.trials) or not confirmed:
            what = (
                f"trial {wrong[0]} is not what was written"
                if wrong
                else "the runs that confirm it are not what was written"
                if not confirmed
                else "its trials are not numbered as they should be"
            )
            raise StorageError(f"study {name!r} did not arrive whole in {shown_storage(to)}: {what}. Nothing was kept.")
        content = "\n".join(sorted(f"{guid} {found}" for guid, found in digests.items()))
        studies.append(
            {
                "name": name,
                "trials": len(study.trials),
                "epochs": sum(len(trial.rows[EPOCHS]) for trial in study.trials),
                "checkpoints": sum(len(trial.rows[CHECKPOINTS]) for trial in study.trials),
                "added": done.added,
                "continued": done.continued,
                "known": done.known,
                "conflicts": done.conflicts,
                "left": done.left,
                "sha256": hashlib.sha256(content.encode()).hexdigest(),
            }
        )
    return Transferred(shown_storage(to), studies)
