"""A session whose trials are trained by clients, each under a lease of its own: what a server drives.

A client is known by a name that it gives itself, and holds at most one trial. Its lease bears that name, a token, new
with each asking, and its machine: of two jobs under one name the one that asked last is believed, and what the other
still reports is late. The lease is in the database, not in this process, so a server that was started again, or another
one on the same database, takes the client's next report as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.search.steps import Step
from batchopt.store.leases import LeaseLost
from batchopt.study.one_at_a_time import one_at_a_time
from batchopt.study.session import Session, Verdict
from batchopt.workers.slot import DEATHS_ALLOWED

Outcome = Literal["out of memory", "diverged", "failed"]
"""How a client may say that a trial has ended, other than by having been trained."""


ENGINE = "job"
"""What stands for the engine of a trial that we have not trained."""

MOST_STEPS = 2**31 - 1
"""What the table of epochs has room for."""


class NothingTrained(Exception):
    """A trial cannot be complete before it has a value."""


class OutOfOrder(Exception):
    """An epoch was told before the one that comes next.

    Attributes:
        expected: that one, from 1.
    """

    def __init__(self, expected: int) -> None:
        super().__init__(f"epoch {expected} comes next")
        self.expected = expected


class ClientSession(Session):
    """A session that knows its clients apart; arguments as of `Session`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The last epoch that a trial's present owner has told; none where it has yet to begin.
        self._told: dict[int, int] = {}
        # Who ended a trial, so that an end which is said again, its answer lost on the way, is no error.
        self._over: dict[int, str] = {}
        self._lately_lost: set[int] = set()
        self._met: dict[str, Machine] = {}

    @one_at_a_time
    def ask_for(self, client: str, token: str, machine: Machine, *, patience: float) -> tuple[Step, str] | None:
        """A client's open trial, or else the next step; None where there is none now.

        Args:
            client: its name, of this study alone; no other's begins with it.
            token: unlike any before; the client's earlier ones are good for nothing from now on.
            machine: that the client trains on.
            patience: seconds to wait for this process's turn at asking.

        Returns:
            The step, and its lease's owner.

        Raises:
            TurnLost: another process is asking, and nothing was begun; ask again.
            LeaseLost: the open trial was lost in this moment; ask again.
        """
        self.let_expire()
        self.meet(machine)
        owner = f"{client}{token}.{machine.fingerprint}"
        while (open_trial := self.ledger.held_for(client)) is not None:
            trial, before = open_trial
            if self.ledger.hand_over(trial, before, owner):
                step = self._step_of(trial, owner)
                self._told.pop(trial, None)
                return step, owner
        begun = self.ask(owner, patience=patience)
        if begun is None:
            return None
        self._told.pop(begun.trial, None)
        return begun, owner

    @one_at_a_time
    def hear(self, trial: int, owner: str, figures: Epoch) -> Verdict:
        """Keep an epoch that a client has trained, once, and say what comes after it.

        Args:
            trial, owner: the client's.
            figures: what it came to; its steps are counted here.

        Raises:
            LeaseLost: the trial is no longer the owner's; nothing was written.
            OutOfOrder: an epoch before it is missing.
        """
        try:
            return self._hear(trial, owner, figures)
        except LeaseLost:
            if self._said_already(trial, owner, figures):
                return "stop"
            raise

    def _hear(self, trial: int, owner: str, figures: Epoch) -> Verdict:
        step = self._step_of(trial, owner)
        if figures.epoch > self._next_epoch(trial):
            # Those before it may have been told to another server.
            del self._steps[trial]
            step = self._step_of(trial, owner)
        if figures.epoch <= self._told.get(trial, 0):
            self.keep_for(trial, owner)
            return "pause" if self._told[trial] >= step.until_epoch else "continue"
        if figures.epoch > self._next_epoch(trial):
            raise OutOfOrder(self._next_epoch(trial))
        verdict = self.tell(trial, self._machine_of(owner), self._counted(step, figures), owner=owner)
        self._told[trial] = figures.epoch
        if verdict == "pause":
            self.let_go(trial)
        return verdict

    def _next_epoch(self, trial: int) -> int:
        return max(self._told.get(trial, 0), self.epochs_kept(trial)) + 1

    @one_at_a_time
    def keep_for(self, trial: int, owner: str) -> None:
        """Renew a client's lease; raises as `hear`."""
        self._step_of(trial, owner)
        self.renew(owner)
        if not self.holds(trial):
            raise LeaseLost(trial)

    @one_at_a_time
    def let_go_for(self, trial: int, owner: str) -> None:
        """Let a client's trial go as it is; whoever asks next may take it up. Raises as `hear`."""
        self._step_of(trial, owner)
        self.let_go(trial)

    @one_at_a_time
    def complete_for(self, trial: int, owner: str) -> None:
        """A client's training has ended by itself: its last epoch is what its trial comes to.

        Raises:
            LeaseLost: the trial is no longer the owner's; nothing was written.
            NothingTrained: it has no epoch.
        """
        if self._over.get(trial) == owner:
            return
        self.keep_for(trial, owner)
        last = self._last_epoch(trial)
        if last is None:
            raise NothingTrained(f"trial {trial} has no epoch yet")
        with self._noticing(trial):
            self._learn(trial, last, over=True)

    @one_at_a_time
    def end_for(self, trial: int, owner: str, outcome: Outcome, why: str = "") -> None:
        """A client cannot train its trial; raises as `hear`.

        Args:
            trial, owner: the client's.
            outcome: what it met.
            why: in its words, where it failed.
        """
        if self._over.get(trial) == owner:
            return
        self.keep_for(trial, owner)
        with self._noticing(trial):
            if outcome == "out of memory":
                self.out_of_memory(trial, self._machine_of(owner).fingerprint)
            elif outcome == "diverged":
                self.rule_out(trial, "diverged", self.ledger.diverge, note="diverged")
            else:
                self.fail(trial, why)

    @one_at_a_time
    def meet(self, machine: Machine) -> None:
        """A client trains on a machine; the study knows it from now on."""
        if machine.fingerprint not in self._met:
            self.join(machine, ENGINE, None)
            self._met[machine.fingerprint] = machine

    @one_at_a_time
    def let_expire(self) -> None:
        """Let go what clients hold that have not been heard of for longer than a lease."""
        for trial in self.ledger.expired():
            with suppress(LeaseLost):
                if self.count_death(trial) >= DEATHS_ALLOWED:
                    self.fail(trial, f"its clients went silent {DEATHS_ALLOWED} times before the same epoch")
                else:
                    self.let_go(trial)
            self._told.pop(trial, None)

    @property
    def stop_reason(self) -> str:
        """Why there was no step, as of the last asking; empty where one had only to wait."""
        return self._search.stop_reason

    @property
    def idle(self) -> bool:
        """Whether nobody trains anything now, neither here nor elsewhere; as of the last asking."""
        return not self.others and not self.ledger.owned()

    def epochs_kept(self, trial: int) -> int:
        """How many epochs of an unfinished trial are kept."""
        return self._shared.progress[trial].epochs

    def _step_of(self, trial: int, owner: str) -> Step:
        """The step of a trial that a client holds, whichever process handed it out.

        Raises:
            LeaseLost: it does not hold it.
        """
        if trial in self.ledger.owned(owner) and trial in self._steps:
            return self._steps[trial]
        if not self.ledger.adopt(trial, owner):
            raise LeaseLost(trial)
        self._steps[trial] = self._shared.taken_up(trial)
        self._told[trial] = self.epochs_kept(trial)
        return self._steps[trial]

    @contextmanager
    def _noticing(self, trial: int) -> Iterator[None]:
        """Ends a trial; raises LeaseLost where it was lost before its end was written."""
        self._lately_lost.discard(trial)
        yield
        if trial in self._lately_lost:
            raise LeaseLost(trial)

    def _end(self, trial: int, state: str, write: Callable[[int], None], note: str = "") -> None:
        owner = self.ledger.owner_of(trial)
        super()._end(trial, state, write, note)
        if owner is not None and trial not in self._lately_lost:
            self._over[trial] = owner

    def _said_already(self, trial: int, owner: str, figures: Epoch) -> bool:
        """Whether an epoch is one of a trial that has ended, said again."""
        if self._over.get(trial) == owner:
            return True
        if trial in self.ledger.owned():
            return False
        with suppress(KeyError):
            frozen = self.ledger.frozen(trial)
            # By another process, or before this one was started: what it has kept tells.
            return frozen.state.is_finished() and frozen.intermediate_values.get(figures.epoch) == figures.value
        return False

    def _lose(self, lost: LeaseLost) -> None:
        self._lately_lost.add(lost.trial)
        super()._lose(lost)

    def _machine_of(self, owner: str) -> Machine:
        """The machine that an owner asked from, to this server or to another one."""
        fingerprint = owner.rpartition(".")[2]
        if fingerprint not in self._met:
            described = self.ledger.transactions.again(self.ledger.records.machines)[fingerprint]
            self.meet(Machine(**{name: value for name, value in described.items() if name != "fingerprint"}))
        return self._met[fingerprint]

    def _counted(self, step: Step, figures: Epoch) -> Epoch:
        """An epoch with its steps, which follow from the study's examples and the trial's batch size."""
        examples, seconds = self.stamp.program.train_examples, figures.train_seconds
        return dataclasses.replace(
            figures,
            steps=min(math.ceil(examples / step.batch_size), MOST_STEPS),
            examples_per_second=examples / seconds if seconds > 0 else 0.0,
        )

    def _last_epoch(self, trial: int) -> Epoch | None:
        """The last epoch of an unfinished trial, as it was told."""
        rows = self.ledger.epochs_of(trial)
        if not rows or rows[-1]["value"] is None:
            return None
        return Epoch(**{field.name: rows[-1][field.name] for field in dataclasses.fields(Epoch)})
