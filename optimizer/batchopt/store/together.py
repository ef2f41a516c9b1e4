"""Epochs of many trials kept in one transaction: what many jobs tell at once costs little more than what one tells.

A trial that is over with its epoch ends in the same transaction. Each trial's lease is looked at there, too, as in
`held_trials.py`; a trial that is its owner's no longer is left out, and the others are kept all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from optuna.trial import TrialState

from batchopt.measured import Epoch
from batchopt.optuna_private import stored_value
from batchopt.store.attributes import GUID
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.ends import TrialEnd, put_ends
from batchopt.store.records import epoch_row
from batchopt.store.tables import (
    database_clock,
    epochs_table,
    leases_table,
    optunas_trials,
    optunas_user_attributes,
    optunas_values,
)


class Held(NamedTuple):
    """A trial whose lease is written here."""

    trial_id: int
    guid: str
    owner: str


@dataclass(frozen=True)
class Told:
    """An epoch that was told of a trial.

    Attributes:
        trial: its number.
        machine: the fingerprint of the one that trained it.
        figures: what it came to; None where it is kept already, and its lease is only to be renewed.
        end: how the trial ends with it; None where it goes on.
    """

    trial: int
    machine: str
    figures: Epoch | None
    end: TrialEnd | None = None


def keep_together(
    connection: sa.Connection,
    study_id: int,
    held: Mapping[int, Held],
    told: Sequence[Told],
    *,
    lease_seconds: float,
    how: Mapping[str, object],
    checkpoints: Checkpoints,
) -> set[int]:
    """Keep epochs, at most one of a trial, renew the leases, and end what is over, inside a transaction.

    Args:
        connection: in its transaction.
        study_id: of the trials.
        held: by number, all of those that were told.
        told: the epochs.
        lease_seconds: how long the leases last from now on.
        how, checkpoints: as of `put_ends`.

    Returns:
        The numbers of those that are not their owners' any more: of them nothing was written.

    Raises:
        Overtaken: one that was to end was ended by another program in this moment; do all of it again.
    """
    lost = _lost(connection, study_id, {one.trial: held[one.trial] for one in told}, lease_seconds)
    there = [one for one in told if one.trial not in lost]
    if kept := [one for one in there if one.figures is not None]:
        _put_epochs(connection, held, kept)
    if ends := {held[one.trial].trial_id: one.end for one in there if one.end is not None}:
        put_ends(connection, ends, how, checkpoints)
    return lost


def _put_epochs(connection: sa.Connection, held: Mapping[int, Held], kept: Sequence[Told]) -> None:
    keys, rows, values = [], [], []
    for one in kept:
        assert one.figures is not None
        trial_id = held[one.trial].trial_id
        keys.append({"of_trial": trial_id, "of_epoch": one.figures.epoch})
        rows.append(epoch_row(trial_id, one.machine, one.figures))
        values.append(stored_value(trial_id, one.figures.epoch, one.figures.value))
    for table, step in ((epochs_table, epochs_table.c.epoch), (optunas_values, optunas_values.c.step)):
        same = sa.and_(table.c.trial_id == sa.bindparam("of_trial"), step == sa.bindparam("of_epoch"))
        connection.execute(table.delete().where(same), keys)
    connection.execute(epochs_table.insert(), rows)
    connection.execute(optunas_values.insert(), values)


def _lost(connection: sa.Connection, study_id: int, held: Mapping[int, Held], seconds: float) -> set[int]:
    """Renew leases, which keeps them from being taken until the transaction ends; returns whose they are no longer."""
    table, ids = leases_table, {one.trial_id: number for number, one in held.items()}
    owners = sa.tuple_(table.c.trial_id, table.c.owner).in_([(one.trial_id, one.owner) for one in held.values()])
    renewed = connection.execute(table.update().where(owners).values(expires_at=database_clock() + seconds))
    lost: set[int] = set()
    if renewed.rowcount != len(held):
        ours = {row.trial_id for row in connection.execute(sa.select(table.c.trial_id).where(owners))}
        lost = {number for trial_id, number in ids.items() if trial_id not in ours}
    # Deleted, another trial may have its id by now; or another program has ended it.
    trials, attributes = optunas_trials, optunas_user_attributes
    there = sa.select(trials.c.trial_id, attributes.c.value_json).join(
        attributes, sa.and_(attributes.c.trial_id == trials.c.trial_id, attributes.c.key == GUID)
    )
    running = sa.and_(
        trials.c.study_id == study_id, trials.c.state == TrialState.RUNNING, trials.c.trial_id.in_(list(ids))
    )
    guids = {row.trial_id: json.loads(row.value_json) for row in connection.execute(there.where(running))}
    return lost | {number for number, one in held.items() if guids.get(one.trial_id) != one.guid}
