"""The trials that jobs hold, as one process knows them: whose each is, and how far.

All of it may be forgotten, and is found again by a lease's name and the database: a job may speak to another server at
each call, and to one that was started a moment ago.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from batchopt.errors import InvalidInput
from batchopt.events import Progress
from batchopt.machine.machine import Machine
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE
from batchopt.store.attributes import LEASE
from batchopt.store.leases import LeaseLost
from batchopt.store.ledger import Ledger
from batchopt.store.records import DamagedCheckpoint

LEASE_FORM = re.compile(r"job:[0-9a-f]{16}:[0-9a-f]{16}:([0-9]{1,9})-([0-9]{1,9})")
"""Of which client, a nonce, from which epoch and until which: all that is to be known of a step beside its trial."""

ENGINE = "job"
"""What stands for the engine of a trial that we have not trained."""


@dataclass
class Job:
    """A trial in a job's hands, as far as this process knows.

    Attributes:
        lease: that it is held by.
        until_epoch: where its step ends.
        machine: that it is trained on.
        progress: how far it is.
    """

    lease: str
    until_epoch: int
    machine: Machine
    progress: Progress


class HeldJobs:
    """The jobs of one study; its methods may be called from any thread.

    Args:
        ledger: of the study, and of nobody else.
        max_power_w: the most that its machines may draw, in watts, where that was asked for.
    """

    def __init__(self, ledger: Ledger, max_power_w: float | None = None) -> None:
        self._ledger, self._max_power_w = ledger, max_power_w
        self._jobs: dict[int, Job] = {}
        self._met: set[str] = set()

    def begun(self, trial: int, job: Job, ledger: Ledger) -> None:
        """A job has begun a step of a trial, which this ledger has held until now."""
        self._ledger.take_over(trial, ledger)
        self._jobs[trial] = job

    def meet(self, name: str) -> Machine:
        """A job trains on a machine of this name; the study knows it from now on."""
        machine = machine_named(name, self._max_power_w)
        if machine.fingerprint not in self._met:
            self._ledger.add_machine(machine, ENGINE)
            self._met.add(machine.fingerprint)
        return machine

    def job(self, trial: int, lease: str) -> Job:
        """What is known of a job, whichever process gave it its step.

        Raises:
            LeaseLost: the lease is not, or no longer, the one that the trial is held by.
        """
        known = self._jobs.get(trial)
        if known is not None and known.lease == lease == self._ledger.holder(trial):
            return known
        return self._adopted(trial, lease)

    def renew(self, trial: int, lease: str) -> None:
        """Keep a trial its job's; raises LeaseLost."""
        self.job(trial, lease)
        if not self._ledger.take_up(trial, lease):
            raise LeaseLost(trial)

    def let_go(self, trial: int, lease: str) -> None:
        """Let a trial go as it is, for whoever asks next; raises LeaseLost."""
        self.renew(trial, lease)
        self._ledger.let_go(trial)
        self._jobs.pop(trial, None)

    def count_death(self, trial: int, lease: str) -> int:
        """Whoever trained a trial has died; returns how often that happened in a row. Raises LeaseLost."""
        self.job(trial, lease)
        return self._ledger.count_death(trial)

    def keep_state(self, trial: int, lease: str, epoch: int, content: bytes) -> None:
        """Keep the state of a job's trial after an epoch that was told.

        Raises:
            LeaseLost: the trial is no longer the job's; nothing was written.
            InvalidInput: the epoch was not told.
        """
        job = self.job(trial, lease)
        if not 1 <= epoch <= job.progress.epochs:
            # Others may have been told to another server.
            job = self._adopted(trial, lease)
        if not 1 <= epoch <= job.progress.epochs:
            told = job.progress.epochs
            raise InvalidInput(f"a checkpoint after epoch {epoch}: {told} were told. Tell the epoch first.")
        self._ledger.add_checkpoint(trial, epoch, content)

    def state(self, trial: int, lease: str) -> tuple[int, bytes] | None:
        """The epoch and the state that a job goes on from; None where it begins anew. Raises LeaseLost."""
        self.renew(trial, lease)
        with suppress(DamagedCheckpoint):
            return self._ledger.checkpoint(trial)
        return None

    def ended_by(self, trial: int, lease: str) -> FrozenTrial | None:
        """A trial that ended under this lease, so that its job may say so twice; None for any other."""
        try:
            frozen = self._ledger.frozen(trial)
        except KeyError:
            return None
        ended = frozen.state.is_finished() and frozen.user_attrs.get(LEASE, {}).get("lease") == lease
        return frozen if ended else None

    def _adopted(self, trial: int, lease: str) -> Job:
        _, until_epoch = epochs_of(lease, trial)
        if not self._ledger.take_up(trial, lease):
            raise LeaseLost(trial)
        frozen = self._ledger.frozen(trial)
        if not {BATCH_SIZE, LEARNING_RATE} <= frozen.params.keys():
            raise LeaseLost(trial)
        machine = self.meet(frozen.user_attrs.get(LEASE, {}).get("machine", ""))
        rows = self._rows(trial)
        progress = Progress(
            frozen.params[BATCH_SIZE],
            frozen.params[LEARNING_RATE],
            epochs=rows[-1]["epoch"] if rows else 0,
            value=rows[-1]["value"] if rows else None,
            train_seconds=sum(row["train_seconds"] for row in rows),
        )
        self._jobs[trial] = Job(lease, until_epoch, machine, progress)
        return self._jobs[trial]

    def _rows(self, trial: int) -> list[dict[str, Any]]:
        return self._ledger.epochs_of(trial)


def machine_named(name: str, max_power_w: float | None = None) -> Machine:
    """A machine of which nothing is known but its name, and what a study says that it may draw."""
    # Another one than that of a study which says nothing of the kind, or something else.
    processor = name if max_power_w is None else f"{name}, {max_power_w:g} W"
    return Machine(name, "cpu", processor, cores=0, memory_bytes=0, versions={}, max_power_w=max_power_w)


def epochs_of(lease: str, trial: int = -1) -> tuple[int, int]:
    """From which epoch and until which a lease's step is; raises LeaseLost where it is no lease."""
    parts = LEASE_FORM.fullmatch(lease)
    if parts is None:
        raise LeaseLost(trial)
    return int(parts[1]), int(parts[2])
