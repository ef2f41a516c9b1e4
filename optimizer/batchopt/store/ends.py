"""How trials end, and what is written of it, all of it inside one transaction: nothing can come between its parts.

Statements of our own, as those of `together.py`, in the place of Optuna's, which ends one trial in a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.trial import TrialState

from batchopt.goals.kind import CostUnit
from batchopt.optuna_private import constraint_key, stored_objective
from batchopt.store.attributes import (
    DIVERGED,
    FAILURE,
    LEARNED_NOTHING,
    MEMORY,
    MISSED,
    MISSED_JOULES,
    NO_VALUE,
    UNTRAINABLE,
)
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.history import summary
from batchopt.store.records import epoch_rows
from batchopt.store.tables import (
    optunas_objectives,
    optunas_system_attributes,
    optunas_trials,
    optunas_user_attributes,
)


class Overtaken(Exception):
    """Another program has ended a trial since the transaction looked at it, which is not to be kept."""


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ends.

    Attributes:
        state: complete, pruned or failed.
        values: of a complete trial, one for each of the goal's objectives.
        attributes: user attributes that say why.
        constraints: by how much a pruned one is infeasible, by the constraint's name.
    """

    state: TrialState
    values: tuple[float, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)


def completed(*values: float) -> TrialEnd:
    """It has what its goal asks for."""
    return TrialEnd(TrialState.COMPLETE, values)


def missed(spent: float, short_by: float, unit: CostUnit) -> TrialEnd:
    """All epochs are trained, and the target was not reached: right-censored after so many seconds, or joules."""
    told = {MISSED_JOULES if unit == "J" else MISSED: spent}
    return TrialEnd(TrialState.PRUNED, attributes=told, constraints={NO_VALUE: short_by})


def out_of_memory(bytes_over: float) -> TrialEnd:
    """It does not fit."""
    return TrialEnd(TrialState.PRUNED, constraints={MEMORY: bytes_over})


def failed(why: str) -> TrialEnd:
    """It cannot be trained, for a reason that is not the search's."""
    return TrialEnd(TrialState.FAIL, attributes={FAILURE: why})


def without_value(*, infeasible: bool, why: Mapping[str, object] | None = None) -> TrialEnd:
    """It has no value of the study's, and its curve stays evidence.

    Optuna's samplers rank what was pruned by its last reported value, whatever that is of, and raise where there are
    two objectives. What is infeasible they rank by its constraints.

    Args:
        infeasible: whether it is marked so, as the study's values are not those of its curve.
        why: user attributes that say it.
    """
    return TrialEnd(
        TrialState.PRUNED, attributes=why or {}, constraints={NO_VALUE: LEARNED_NOTHING} if infeasible else {}
    )


def diverged(*, infeasible: bool) -> TrialEnd:
    """The loss is not finite: evidence against that corner, not an error."""
    return without_value(infeasible=infeasible, why={DIVERGED: True})


def refused(why: str, *, infeasible: bool) -> TrialEnd:
    """Its configuration is none to train: evidence against that corner, not an error."""
    return without_value(infeasible=infeasible, why={UNTRAINABLE: why})


def put_ends(
    connection: sa.Connection, ends: Mapping[int, TrialEnd], how: Mapping[str, object], checkpoints: Checkpoints
) -> None:
    """End trials, by trial id, with what summarises them: a finished one is immutable. Inside a transaction.

    Args:
        connection: in its transaction, in which the trials were looked at.
        ends: how each ends; its epochs are written already.
        how: of all of them, kept with each summary.
        checkpoints: the states that are forgotten with them; to be swept after the transaction.

    Raises:
        Overtaken: one of them runs no more.
    """
    ids = sorted(ends)
    trials = optunas_trials
    for state in {end.state for end in ends.values()}:
        mine = [trial_id for trial_id in ids if ends[trial_id].state == state]
        running = sa.and_(trials.c.trial_id.in_(mine), trials.c.state == TrialState.RUNNING)
        # As Optuna has it: UTC, and without saying so.
        now = datetime.now(UTC).replace(tzinfo=None)
        ended = connection.execute(trials.update().where(running).values(state=state, datetime_complete=now))
        if ended.rowcount != len(mine):
            raise Overtaken
    objectives = [stored_objective(id_, place, value) for id_ in ids for place, value in enumerate(ends[id_].values)]
    if objectives:
        connection.execute(optunas_objectives.delete().where(optunas_objectives.c.trial_id.in_(ids)))
        connection.execute(optunas_objectives.insert(), objectives)
    epochs = epoch_rows(connection, ids)
    user = {id_: {**ends[id_].attributes, **summary(epochs[id_]), **how} for id_ in ids}
    system = {id_: {constraint_key(name): over for name, over in ends[id_].constraints.items()} for id_ in ids}
    _put_attributes(connection, optunas_user_attributes, user)
    # Whoever was about to prune one when its process died may have written that it has no value.
    _put_attributes(connection, optunas_system_attributes, system, gone=constraint_key(NO_VALUE))
    for trial_id in ids:
        checkpoints.forget(connection, trial_id)


def _put_attributes(
    connection: sa.Connection, table: sa.TableClause, attributes: Mapping[int, Mapping[str, object]], *, gone: str = ""
) -> None:
    """Put these in the place of what has their names; `gone` is one that is removed."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, mine in attributes.items()
        for key, value in mine.items()
    ]
    keys = sorted({str(row["key"]) for row in rows} | {gone} - {""})
    if keys:
        mine = sa.and_(table.c.trial_id.in_(list(attributes)), table.c.key.in_(keys))
        connection.execute(table.delete().where(mine))
    if rows:
        connection.execute(table.insert(), rows)
