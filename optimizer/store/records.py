"""Machines, epochs, leases and checkpoints: short statements, each one transaction of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from optimizer.store.owner import is_dead
from optimizer.store.tables import (
    checkpoints_table,
    database_clock,
    epochs_table,
    leases_table,
    machines_table,
)
from optimizer.training.machine import Machine
from optimizer.training.messages import Epoch

LEASE_SECONDS = 30.0
"""How long a trial belongs to its owner without a word from it. Renewed at a third of this."""


class Records:
    """Our own tables of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_machine(self, machine: Machine) -> None:
        """Remember a machine, under its fingerprint."""
        self._replace(machines_table, {"fingerprint": machine.fingerprint}, {"description": machine.describe()})

    def machines(self) -> dict[str, dict[str, Any]]:
        """Descriptions of all machines, by fingerprint."""
        with self._engine.connect() as connection:
            return {row.fingerprint: row.description for row in connection.execute(sa.select(machines_table))}

    def add_epoch(self, trial_id: int, machine: str, epoch: Epoch, compile_seconds: float) -> None:
        """Keep an epoch; one that is trained again takes the place of the first."""
        key = {"trial_id": trial_id, "epoch": epoch.epoch}
        self._replace(
            epochs_table,
            key,
            {"machine": machine, "compile_seconds": compile_seconds}
            | {name: _storable(value) for name, value in asdict(epoch).items() if name not in key},
        )

    def epochs(self, trial_ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
        """The epochs of each trial, in order, by trial id."""
        ids = list(trial_ids)
        found: dict[int, list[dict[str, Any]]] = {trial_id: [] for trial_id in ids}
        query = sa.select(epochs_table).order_by(epochs_table.c.trial_id, epochs_table.c.epoch)
        with self._engine.connect() as connection:
            # SQL databases bound the number of parameters of one statement.
            for start in range(0, len(ids), 500):
                chunk = query.where(epochs_table.c.trial_id.in_(ids[start : start + 500]))
                for row in connection.execute(chunk).mappings():
                    found[row["trial_id"]].append(dict(row))
        return found

    def take_lease(self, trial_id: int, owner: str) -> bool:
        """Take a trial that is nobody's, or whose lease has expired; one atomic statement decides.

        Returns:
            Whether the trial is the owner's now.
        """
        table = leases_table
        values = {"owner": owner, "expires_at": database_clock() + LEASE_SECONDS}
        free = sa.or_(table.c.expires_at < database_clock(), table.c.owner == owner)
        with self._engine.begin() as connection:
            taken = connection.execute(table.update().where(table.c.trial_id == trial_id, free).values(values))
            if taken.rowcount:
                return True
        try:
            with self._engine.begin() as connection:
                connection.execute(table.insert().values(trial_id=trial_id, **values))
        except sa.exc.IntegrityError:
            return False
        return True

    def renew_leases(self, trial_ids: Iterable[int], owner: str) -> None:
        """Keep the owner's trials its own for another `LEASE_SECONDS`."""
        table = leases_table
        with self._engine.begin() as connection:
            connection.execute(
                table.update()
                .where(table.c.trial_id.in_(list(trial_ids)), table.c.owner == owner)
                .values(expires_at=database_clock() + LEASE_SECONDS)
            )

    def release_lease(self, trial_id: int, owner: str) -> None:
        """Let a trial go; anyone may take it up."""
        table = leases_table
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.trial_id == trial_id, table.c.owner == owner))

    def forget_dead_owners(self) -> None:
        """Release the leases of processes that were killed on this system, without waiting for them to expire."""
        for owner in set(self.leased().values()):
            if is_dead(owner):
                with self._engine.begin() as connection:
                    connection.execute(leases_table.delete().where(leases_table.c.owner == owner))

    def leased(self) -> dict[int, str]:
        """The owner of each trial whose lease has not expired, by trial id."""
        table = leases_table
        query = sa.select(table.c.trial_id, table.c.owner).where(table.c.expires_at >= database_clock())
        with self._engine.connect() as connection:
            return {row.trial_id: row.owner for row in connection.execute(query)}

    def add_checkpoint(self, trial_id: int, epoch: int, content: bytes) -> None:
        """Keep a trial's state after `epoch` epochs, in the place of an earlier one."""
        digest = hashlib.sha256(content).hexdigest()
        self._replace(checkpoints_table, {"trial_id": trial_id}, {"epoch": epoch, "sha256": digest, "content": content})

    def checkpoint(self, trial_id: int) -> tuple[int, bytes] | None:
        """The epoch and the state of a trial's checkpoint; None where there is none, or it is corrupt."""
        query = sa.select(checkpoints_table).where(checkpoints_table.c.trial_id == trial_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None or hashlib.sha256(row.content).hexdigest() != row.sha256:
            return None
        return row.epoch, row.content

    def remove_checkpoint(self, trial_id: int) -> None:
        """Forget the state of a trial that has ended."""
        with self._engine.begin() as connection:
            connection.execute(checkpoints_table.delete().where(checkpoints_table.c.trial_id == trial_id))

    def _replace(self, table: sa.Table, key: dict[str, Any], values: dict[str, Any]) -> None:
        """Update the row of that key, or insert it, in one transaction."""
        match = [table.c[name] == value for name, value in key.items()]
        with self._engine.begin() as connection:
            # MariaDB counts changed rows, not matched ones, so an update that changes nothing would look like none.
            connection.execute(table.delete().where(*match))
            connection.execute(table.insert().values(**key, **values))


def _storable(value: float | None) -> float | None:
    """NULL for NaN and infinity, which not every database can hold."""
    return value if value is not None and math.isfinite(value) else None
