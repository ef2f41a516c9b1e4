"""What a doctor finds, and what repairs are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from batchopt.store.access import writing
from batchopt.store.address import storage_url
from batchopt.store.damage import DamagedRow
from batchopt.store.folders import Folder, Folders
from batchopt.store.tables import (
    checkpoints_table,
    leases_table,
    machines_table,
    memory_table,
    optunas_trials,
    step_times_table,
    turns_table,
)
from batchopt.store.transfer.rows import Rows

Repair = Callable[[], None]

MADE_ANEW = {
    leases_table.name: "the trial can be taken up again",
    turns_table.name: "the next process asks",
    "trial_heartbeats": "whoever trains beats again",
    checkpoints_table.name: "the trial starts over when it is taken up",
    step_times_table.name: "the next session measures again",
    memory_table.name: "the next session measures again",
    machines_table.name: "the next session there describes it again",
}
"""The tables whose rows come back by themselves, and how."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        kind: in a word or two, for programs.
        what: what it is, and what it means.
        remedy: what `--fix` does, or what the user can do where it can do nothing.
        repair: does it; None where only the user can.
    """

    kind: str
    what: str
    remedy: str
    repair: Repair | None = field(default=None, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kind": self.kind, "what": self.what, "remedy": self.remedy, "fixable": self.repair is not None}


def deletion(
    storage: str,
    table: sa.Table | sa.TableClause,
    ids: list[int],
    key: str = "trial_id",
    *,
    folders: Folders | None = None,
) -> Repair:
    """Removes the rows of trials, or of what else a column names, and the files that they name."""

    def delete() -> None:
        files: list[str] = []
        with writing(storage) as connection:
            for id_ in ids:
                mine = table.c[key] == id_
                if table is checkpoints_table:
                    files += filter(None, connection.execute(sa.select(table.c.location).where(mine)).scalars())
                connection.execute(table.delete().where(mine))
        for location in files:
            (folders or Folders(storage_url(storage))).remove(location)

    return delete


def damaged(storage: str, row: DamagedRow, folders: Folders) -> Finding:
    """A row that is not what any program writes; only what a session makes anew by itself can go."""
    table = sa.table(row.table, *map(sa.column, (*row.key, "location")))

    def delete() -> None:
        mine = sa.and_(*(table.c[name] == value for name, value in row.key.items()))
        location = None
        with writing(storage) as connection:
            if row.table == checkpoints_table.name:
                location = connection.execute(sa.select(table.c.location).where(mine)).scalar()
            connection.execute(table.delete().where(mine))
        if location:
            folders.remove(location)

    if row.table in MADE_ANEW and None not in row.key.values():
        return Finding("damaged row", f"{row}.", f"It is removed; {MADE_ANEW[row.table]}.", delete)
    return Finding(
        "damaged row",
        f"{row}.",
        "Restore a copy of the database, or correct that value with another program; nobody else knows what it was.",
    )


def removal(folder: Folder, names: list[str]) -> Repair:
    """Removes files of a folder."""

    def delete() -> None:
        for name in names:
            with contextlib.suppress(OSError):
                folder.remove(name)

    return delete


def ending(storage: str, trial_id: int) -> Repair:
    """Ends a trial that nobody trains."""

    def end() -> None:
        with writing(storage) as connection:
            Rows(connection).end(trial_id, "FAIL")

    return end


def numbering(storage: str, study_id: int) -> Repair:
    """Numbers the trials of a study from 0 on, each number once; failed ones stand for those that are missing."""

    def number() -> None:
        trials = optunas_trials
        with writing(storage) as connection:
            mine = sa.select(trials.c.trial_id, trials.c.number).where(trials.c.study_id == study_id)
            taken: set[int] = set()
            again = []
            for trial_id, at in connection.execute(mine.order_by(trials.c.trial_id)).all():
                if at in taken:
                    again.append(trial_id)
                taken.add(at)
            missing = [at for at in range(max(taken) + 1) if at not in taken]
            for trial_id in again:
                at = missing.pop(0) if missing else max(taken) + 1
                taken.add(at)
                connection.execute(trials.update().where(trials.c.trial_id == trial_id).values(number=at))
            for at in missing:
                row = {"study_id": study_id, "number": at, "state": TrialState.FAIL}
                connection.execute(trials.insert().values(**row))

    return number
