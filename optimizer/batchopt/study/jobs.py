"""A session whose trials are trained by jobs that come and go: each step has a lease of its own, which names the step.

Between two calls a session remembers nothing of a job: what it needs stands in the lease's name and in the database.
So a server may be killed at any moment, and another one of the same database answers the job's next call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from batchopt.errors import InvalidInput
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.search.steps import Step
from batchopt.store.attributes import LEASE, SERVICE
from batchopt.store.history import as_trial, read_trials
from batchopt.store.leases import LeaseLost
from batchopt.study.one_at_a_time import one_at_a_time
from batchopt.study.session import Session, Verdict

MOST_REMEMBERED = 10_000
"""Leases whose machines are remembered."""

LEASE_FORM = re.compile(r"job:[0-9a-f]{16}:[0-9a-f]{16}:([0-9]{1,9})-([0-9]{1,9})")
"""Of which client, a nonce, from which epoch and until which: all that is to be known of a step beside its trial."""


@dataclass(frozen=True)
class Work:
    """A step as it is given to a job.

    Attributes:
        step: what to train.
        from_epoch: after which epoch its checkpoint is; 0 where it begins anew.
        lease: to be shown with whatever is said of it.
    """

    step: Step
    from_epoch: int
    lease: str


class JobSession(Session):
    """A session for jobs that are named by whoever runs them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._joined: set[str] = set()
        self._machines: dict[str, Machine] = {}

    @property
    def done(self) -> str:
        """Why there are no more steps, in one line; empty where there are, or may be."""
        return "" if self.others else self._search.stop_reason

    @property
    def service(self) -> dict[str, object] | None:
        """How a service was asked for this study, as JSON values; None where none was."""
        return self.ledger.transactions.again(lambda: self.ledger.study.user_attrs).get(SERVICE)

    def remember_service(self, asked: dict[str, object]) -> None:
        """Keep how a service was asked for this study."""
        self.ledger.in_turn(lambda: self.ledger.study.set_user_attr(SERVICE, asked))

    @one_at_a_time
    def ask_for(self, client: str, machine: str, *, can_pause: bool, patience: float) -> Work | None:
        """The open step of a client, else a new one; None where there is none now.

        Args:
            client: its name, any text.
            machine: that it trains on, any text; kept with the trial.
            can_pause: whether the job may be told to pause; else its steps last until the last epoch.
            patience: as in `ask`, and raises as it does.
        """
        prefix = f"job:{hashlib.sha256(client.encode()).hexdigest()[:16]}:"
        if (found := self._open_work(prefix)) is not None:
            return found

        def owner(step: Step) -> str:
            until = step.until_epoch if can_pause else self.ending.last_epoch
            return f"{prefix}{secrets.token_hex(8)}:{step.from_epoch}-{until}"

        if (step := self.ask(owner, patience=patience)) is None:
            return None
        try:
            lease = self.ledger.holder(step.trial)
            self.ledger.mark(step.trial, LEASE, {"lease": lease, "machine": machine})
            step = dataclasses.replace(step, until_epoch=_epochs_of(lease)[1])
            return Work(step, self.state(step)[0], lease)
        finally:
            self._put_down(step.trial)

    @contextmanager
    def held_by(self, trial: int, lease: str) -> Iterator[Step]:
        """Hold a trial for its job during one call; the lease is renewed by that.

        Raises:
            LeaseLost: the lease is not, or no longer, the one that the trial is held by.
        """
        with self.lock:
            step = self._taken_up(trial, lease)
            try:
                yield step
            finally:
                self._put_down(trial)

    def tell_for(self, trial: int, lease: str, figures: Callable[[Step], Epoch]) -> Verdict:
        """Keep an epoch of a job's trial, once however often it is told, and say what comes after it.

        Raises:
            LeaseLost: the trial is no longer the job's; nothing was written.
            InvalidInput: an epoch beyond the last, or before which others are missing.
        """
        try:
            with self.held_by(trial, lease) as step:
                told, known = figures(step), self._shared.progress[trial].epochs
                if told.epoch > self.ending.last_epoch:
                    raise InvalidInput(f"epoch {told.epoch}: a trial of this study has {self.ending.last_epoch}.")
                if told.epoch > known + 1 and told.epoch < self.ending.last_epoch:
                    raise InvalidInput(f"epoch {told.epoch}: epoch {known + 1} was not told yet. Tell them in order.")
                machine = self._machine_of(trial, lease)
                if machine.fingerprint not in self._joined:
                    self.ledger.add_machine(machine, "job")
                    self._joined.add(machine.fingerprint)
                return self.tell(trial, machine, told, owner=lease)
        except LeaseLost:
            if self.ended_by(trial, lease) is None:
                raise
            return "stop"

    def ended_by(self, trial: int, lease: str) -> str | None:
        """The state of a trial that ended under this lease, so that its job may say so twice; None for any other."""
        frozen = self._frozen(trial)
        if frozen is None or not frozen.state.is_finished() or frozen.user_attrs.get(LEASE, {}).get("lease") != lease:
            return None
        return str(frozen.state.name.lower())

    def keep_for(self, trial: int, lease: str, epoch: int, content: bytes) -> None:
        """Keep the state of a job's trial after an epoch that was told.

        Raises:
            LeaseLost: the trial is no longer the job's; nothing was written.
            InvalidInput: the epoch was not told.
        """
        with self.held_by(trial, lease):
            told = self._shared.progress[trial].epochs
            if not 1 <= epoch <= told:
                raise InvalidInput(f"a checkpoint after epoch {epoch}: {told} were told. Tell the epoch first.")
            self.keep(trial, epoch, content)

    def state_for(self, trial: int, lease: str) -> tuple[int, bytes | None]:
        """From which epoch a job goes on, and the state after it; (0, None) for a beginning. Raises LeaseLost."""
        with self.held_by(trial, lease) as step:
            return self.state(step)

    def diverge(self, trial: int) -> None:
        """The loss of a trial that is held is not finite."""
        self.rule_out(trial, "diverged", self.ledger.diverge, note="diverged")

    def _open_work(self, prefix: str) -> Work | None:
        for trial, lease in self.ledger.leases_of(prefix):
            try:
                with self.held_by(trial, lease) as step:
                    told = self._shared.progress[trial].epochs
                    if step.from_epoch < step.until_epoch <= told:
                        # Paused, and its job asks for another step: this one is anyone's now.
                        self.let_go(trial)
                        continue
                    return Work(dataclasses.replace(step, reason="taken up again"), self.state(step)[0], lease)
            except LeaseLost:
                continue
        return None

    def _machine_of(self, trial: int, lease: str) -> Machine:
        """The machine that a lease was asked for; remembered, as each epoch of it asks."""
        if lease not in self._machines:
            if len(self._machines) >= MOST_REMEMBERED:
                self._machines.clear()
            told = self.ledger.frozen(trial).user_attrs.get(LEASE, {})
            self._machines[lease] = machine_named(told.get("machine", ""))
        return self._machines[lease]

    def _taken_up(self, trial: int, lease: str) -> Step:
        from_epoch, until_epoch = _epochs_of(lease, trial)
        if not self.ledger.take_up(trial, lease):
            raise LeaseLost(trial)
        (record,) = read_trials(self.ledger.study, self.ledger.records, lambda one: one.number == trial)
        known = as_trial(
            record, held=True, max_epochs=self.ending.last_epoch, target=self.ending.target, sign=self.stamp.metric.sign
        )
        self._search.learn(known)
        self._shared.remember(record)
        assert record.batch_size is not None and record.learning_rate is not None
        step = Step(trial, record.batch_size, record.learning_rate, until_epoch, from_epoch, extra=record.extra)
        self._steps[trial] = step
        return step

    def _put_down(self, trial: int) -> None:
        """What happens to it from now on, another server may hear of."""
        self.ledger.put_down(trial)
        self._shared.forget(trial)
        self._steps.pop(trial, None)

    def _frozen(self, trial: int) -> FrozenTrial | None:
        try:
            return self.ledger.frozen(trial)
        except KeyError:
            return None


def machine_named(name: str) -> Machine:
    """A machine of which nothing is known but its name."""
    return Machine(name, "cpu", name, cores=0, memory_bytes=0, versions={})


def _epochs_of(lease: str, trial: int = -1) -> tuple[int, int]:
    parts = LEASE_FORM.fullmatch(lease)
    if parts is None:
        raise LeaseLost(trial)
    return int(parts[1]), int(parts[2])
