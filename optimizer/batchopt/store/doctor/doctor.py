"""What is wrong with a database, said so that its user can judge it; and repaired, after a backup.

What any session mends by itself is no finding: an unfinished trial without a lease is one that waits to be taken up.
"""

from __future__ import annotations

import datetime
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from batchopt.store.access import is_file, path_of, reading
from batchopt.store.address import check_file, shown_storage, storage_url, untouched
from batchopt.store.damage import STUMBLES, damaged_rows
from batchopt.store.doctor.backup import back_up
from batchopt.store.doctor.findings import Finding, damaged, deletion, ending, numbering, removal
from batchopt.store.doctor.versions import wrong_versions
from batchopt.store.folders import Elsewhere, Folders, name_of
from batchopt.store.owner import is_dead
from batchopt.store.records import DamagedCheckpoint
from batchopt.store.tables import (
    checkpoints_table,
    confirmations_table,
    database_clock,
    epochs_table,
    leases_table,
    optunas_children,
    optunas_trials,
)
from batchopt.store.transfer.rows import Rows
from batchopt.store.transfer.study_rows import CHECKPOINTS, CURVE, EPOCHS, StudyRows, TrialRows, whole
from batchopt.words import counted

LONG_SECONDS = 3600.0
"""A lease that expired so long ago, or a trial of another program that has been silent for so long, is abandoned."""

NO_DAMAGE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY)
"""What SQLite says of other files, and of those that it cannot look at now."""


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        storage: the database.
        studies, trials: how many were looked at.
        findings: what is not as it should be; after a repair, what is left.
        repaired: what was, and is no longer.
        backup: the path of the database as it was before the repair; empty where nothing was to be repaired.
    """

    storage: str
    studies: int
    trials: int
    findings: list[Finding]
    repaired: list[Finding] = field(default_factory=list)
    backup: str = ""

    def size(self) -> str:
        """How much was looked at, and where."""
        studies = counted(self.studies, "study", "studies")
        return f"{studies} and {counted(self.trials, 'trial')} in {self.storage}"

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        told = {name: [finding.describe() for finding in getattr(self, name)] for name in ("findings", "repaired")}
        return {"storage": self.storage, "studies": self.studies, "trials": self.trials, "backup": self.backup} | told


def examine(storage: str, checkpoints: str | None = None) -> Examined:
    """Look at everything, and change nothing.

    Args:
        storage: a path or an SQLAlchemy URL.
        checkpoints: a folder of checkpoints' files beside the one that lies beside the database, as `--checkpoints`.

    Raises:
        StorageError: there is no such database, it is something else, or a newer batchopt has written it.
    """
    folders = Folders(storage_url(storage), checkpoints)
    damage = list(_damage(path_of(storage))) if is_file(storage) else []
    if damage:
        # Whatever else is read from it would be hearsay.
        return Examined(shown_storage(storage), 0, 0, damage)
    with reading(storage) as connection:
        findings = [damaged(storage, row, folders) for row in damaged_rows(connection)]
        rows, studies = Rows(connection), list[StudyRows]()
        try:
            studies += [rows.read(name) for name in rows.names()]
            findings += wrong_versions(connection, storage)
            findings += _strays(connection, rows, studies, storage, folders)
            for study in studies:
                findings += _of_study(study, storage)
                findings += [finding for trial in study.trials for finding in _of_trial(study, trial, storage, folders)]
            findings += _zombies(connection, rows, studies, storage)
            findings += _unnamed_files(rows, folders)
        except STUMBLES:
            # What is damaged keeps the rest from being looked at.
            if not findings:
                raise
    return Examined(shown_storage(storage), len(studies), sum(len(study.trials) for study in studies), findings)


def repair(storage: str, checkpoints: str | None = None) -> Examined:
    """Mend what can be mended, after a backup; look again. Arguments as `examine`.

    Raises:
        StorageError: as `examine`; or the backup, or a repair, could not be written.
    """
    before = examine(storage, checkpoints)
    todo = [finding for finding in before.findings if finding.repair is not None]
    if not todo:
        return before
    moment = time.strftime("%Y%m%d-%H%M%S")
    name = f"batchopt-{moment}.backup.db"
    # With the folder: a server has none beside it, and its backup lies where the command was given.
    at = path_of(storage).with_suffix(f".{moment}.backup.db").resolve() if is_file(storage) else Path(name).resolve()
    back_up(storage, str(at))
    for finding in todo:
        assert finding.repair is not None
        finding.repair()
    after = examine(storage, checkpoints)
    left = {finding.what for finding in after.findings}
    repaired = [finding for finding in todo if finding.what not in left]
    return Examined(after.storage, after.studies, after.trials, after.findings, repaired, str(at))


def _damage(file: Path) -> Iterator[Finding]:
    """What is wrong with the pages of an SQLite file; whether it is one at all is said when it is opened."""
    check_file(storage_url(str(file)), create=False)
    url = untouched(storage_url(str(file)))
    try:
        with closing(sqlite3.connect(f"{url.database}?{urlencode(dict(url.query))}", uri=True)) as connection:
            lines = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in NO_DAMAGE:
            return
        lines = [str(error)]
    if lines != ["ok"]:
        yield Finding(
            "damaged file",
            f"the file is damaged: {'; '.join(line.splitlines()[-1] for line in lines)}. What it says is not reliable.",
            "Restore a copy. Without one, `sqlite3 FILE .recover` saves what can be read.",
        )


def _strays(
    connection: sa.Connection, rows: Rows, studies: list[StudyRows], storage: str, folders: Folders
) -> Iterator[Finding]:
    """Rows of ours whose trial is over, or is no more; leases of processes that are."""
    states = {trial.trial_id: (trial, study) for study in studies for trial in study.trials}
    now = float(connection.execute(sa.select(database_clock())).scalar_one())
    everyone = sa.select(optunas_trials.c.trial_id)
    for child in (*optunas_children, sa.table("trial_values", sa.column("trial_id"))):
        left = set(connection.execute(sa.select(child.c.trial_id).where(child.c.trial_id.not_in(everyone))).scalars())
        if left:
            yield Finding(
                "rows of deleted trials",
                f"{child.name} has rows of {counted(len(left), 'trial')} that another program has deleted, and no "
                "trial. The next trial may be given the number that ties them to it, and then cannot begin.",
                "They are removed.",
                deletion(storage, child, sorted(left)),
            )
    for table, word in ((epochs_table, "epochs"), (checkpoints_table, "checkpoints"), (leases_table, "leases")):
        if not rows.has(table.name):
            continue
        ids = set(connection.execute(sa.select(table.c.trial_id)).scalars())
        gone = sorted(ids - states.keys())
        if gone:
            yield Finding(
                f"orphaned {word}",
                f"there are {word} of {counted(len(gone), 'trial')} that no study has any more: deleted by another "
                "program, which does not know of them. A new trial may be given the number that ties them to it.",
                "They are removed.",
                deletion(storage, table, gone, folders=folders),
            )
        over = sorted(id_ for id_ in ids & states.keys() if table is not epochs_table and states[id_][0].finished)
        if over:
            yield Finding(
                f"useless {word}",
                f"there are {word} of {counted(len(over), 'trial')} that have ended; nothing will use them.",
                "They are removed.",
                deletion(storage, table, over, folders=folders),
            )
    yield from _stray_confirmations(connection, rows, studies, storage)
    if rows.has(leases_table.name):
        for lease in connection.execute(sa.select(leases_table)):
            if lease.trial_id not in states or states[lease.trial_id][0].finished:
                continue
            trial, study = states[lease.trial_id]
            silent = now - lease.expires_at
            if silent > LONG_SECONDS or is_dead(lease.owner):
                why = f"it expired {silent / 3600:.1f} h ago" if silent > LONG_SECONDS else "its process has ended"
                yield Finding(
                    "abandoned lease",
                    f"trial {trial.number} of study {study.name!r} is still {lease.owner}'s, though {why}.",
                    "It is released; the trial can be taken up again, which a study that goes on does by itself.",
                    deletion(storage, leases_table, [lease.trial_id]),
                )


def _stray_confirmations(
    connection: sa.Connection, rows: Rows, studies: list[StudyRows], storage: str
) -> Iterator[Finding]:
    """Runs that confirmed what a study recommended that is no more."""
    table = confirmations_table
    if not rows.has(table.name):
        return
    ids = set(connection.execute(sa.select(table.c.study_id)).scalars())
    gone = sorted(ids - {study.study_id for study in studies})
    if gone:
        yield Finding(
            "orphaned confirmations",
            f"there are runs that confirm what {counted(len(gone), 'study', 'studies')} recommended, not there any "
            "more: deleted by another program, which does not know of them.",
            "They are removed.",
            deletion(storage, table, gone, key="study_id"),
        )


def _of_study(study: StudyRows, storage: str) -> Iterator[Finding]:
    numbers = [trial.number for trial in study.trials]
    if sorted(numbers) != list(range(len(numbers))):
        yield Finding(
            "trial numbers",
            f"the trials of study {study.name!r} are not numbered from 0 on, each number once: another program has "
            "deleted some.",
            "Trials whose number another one has are given missing ones; failed trials stand for the rest.",
            numbering(storage, study.study_id),
        )
    twice = [guid for guid, count in Counter(trial.guid for trial in study.trials).items() if count > 1]
    if twice:
        yield Finding(
            "trial twice",
            f"study {study.name!r} has {counted(len(twice), 'trial')} more than once ({twice[0]}).",
            "batchopt merge to a new database leaves one of each.",
        )


def _of_trial(study: StudyRows, trial: TrialRows, storage: str, folders: Folders) -> Iterator[Finding]:
    where = f"trial {trial.number} of study {study.name!r}"
    summed = trial.attributes.get("epochs")
    if trial.finished and isinstance(summed, int) and summed > len(trial.rows[EPOCHS]):
        yield Finding(
            "epochs missing",
            f"{where} was trained {counted(summed, 'epoch')}, and {len(trial.rows[EPOCHS])} of them are there.",
            "Restore them with batchopt merge from a copy that has them; without them the trial still counts.",
        )
    for row in trial.rows[CHECKPOINTS]:
        try:
            whole(row, folders)
        except Elsewhere as folder:
            yield Finding(
                "checkpoint elsewhere",
                f"the checkpoint of {where} was not looked at: {folder}.",
                "Without that folder the trial starts over when it is taken up.",
            )
        except DamagedCheckpoint as damage:
            yield Finding(
                "damaged checkpoint",
                f"the checkpoint of {where} is not what was written ({damage}); the trial would start over.",
                "It is removed, and the trial starts over when it is taken up.",
                deletion(storage, checkpoints_table, [trial.trial_id], folders=folders),
            )


def _zombies(connection: sa.Connection, rows: Rows, studies: list[StudyRows], storage: str) -> Iterator[Finding]:
    """Trials that another program has begun, and that it says nothing of any more."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    # Heartbeats are as the database's clock shows them, in the time zone of its sessions: as Optuna compares them.
    beat = connection.execute(sa.select(sa.func.now())).scalar_one().replace(tzinfo=None)
    leased = (
        set(connection.execute(sa.select(leases_table.c.trial_id)).scalars()) if rows.has(leases_table.name) else ()
    )
    beats = rows.heartbeats()
    for study in studies:
        for trial in study.trials:
            if trial.state != "RUNNING" or trial.trial_id in leased or trial.guid_written or trial.rows[EPOCHS]:
                continue
            last, at = beats.get(trial.trial_id), beat
            if last is None:
                last, at = trial.row["datetime_start"], now
            silent = LONG_SECONDS + 1 if last is None else (at - last).total_seconds()
            if silent > LONG_SECONDS:
                yield Finding(
                    "zombie",
                    f"trial {trial.number} of study {study.name!r} is RUNNING, begun by another program that has said "
                    f"nothing for {silent / 3600:.1f} h and that no lease tells of: most likely it is dead.",
                    f"Marks it FAIL; its {counted(len(trial.rows[CURVE]), 'reported value')} stay. Do not "
                    "use --fix while that program is running.",
                    ending(storage, trial.trial_id),
                )


def _unnamed_files(rows: Rows, folders: Folders) -> Iterator[Finding]:
    """Files beside the database that no row names: of a process that was killed between the two."""
    folder = folders.own
    if folder is None:
        return
    now = time.time()
    # A process that writes has a lease; it may be about to name what it has placed.
    leases = rows.all_of(leases_table)
    busy = any(not is_dead(lease["owner"]) and now - lease["expires_at"] < LONG_SECONDS for lease in leases)
    named = {name_of(location) for location in rows.locations()}
    found = [(file, file.lstat()) for file in folder.files() if file.name not in named]
    files = [(file.name, about.st_size) for file, about in found if not busy or now - about.st_mtime > LONG_SECONDS]
    if files:
        yield Finding(
            "unnamed files",
            f"{counted(len(files), 'file')} in {folder.path} ({sum(size for _, size in files) >> 20} MiB) "
            "hold states of trials that the database does not name: a process was killed when it had written them.",
            "They are removed.",
            removal(folder, [name for name, _ in files]),
        )
