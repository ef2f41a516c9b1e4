"""The trials of a study as they stand at this moment, for whoever looks on: which are trained, and which wait."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from optuna.study import Study

from batchopt.store.attributes import LEASE
from batchopt.store.history import read_trials
from batchopt.store.records import Records


@dataclass(frozen=True)
class LiveTrial:
    """A trial at one moment.

    Attributes:
        state: `running` where somebody holds it, `paused` where nobody does, else how it ended.
        value: after its last epoch; None before the first.
        machine, reason: what its job named, and why it was given its step; empty for trials of a script.
    """

    trial: int
    state: str
    batch_size: int | None
    learning_rate: float | None
    extra: dict[str, Any]
    epochs: int
    value: float | None
    note: str
    machine: str
    reason: str

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def live_trials(study: Study, records: Records) -> list[LiveTrial]:
    """All trials of a study, by number."""
    held = records.leased()
    told = {trial.number: trial.user_attrs.get(LEASE, {}) for trial in study.get_trials(deepcopy=False)}
    live = []
    for record in read_trials(study, records):
        state = record.state
        if state == "running" and record.trial_id not in held:
            state = "paused"
        job = told.get(record.number, {})
        live.append(
            LiveTrial(
                trial=record.number,
                state=state,
                batch_size=record.batch_size,
                learning_rate=record.learning_rate,
                extra=record.extra,
                epochs=len(record.epochs),
                value=record.last.get("value"),
                note=record.note,
                machine=str(job.get("machine", "")),
                reason=str(job.get("reason", "")),
            )
        )
    return live
