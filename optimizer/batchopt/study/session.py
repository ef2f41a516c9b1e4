"""One process's part in a study: which step is next, and what came of it. No worker in it, and no TensorFlow.

Whatever trains drives a session: the loop with its workers, a server, a test with a formula. It asks for a step, tells
each epoch of it, and ends by releasing what it holds. What a session promises is kept in the database: a trial belongs
to whoever asked for it, as long as that one renews its lease, and nothing late is written to it by anybody else.
Any thread may use a session, one at a time: each method waits for the others.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Literal, Self

from batchopt.errors import StorageError
from batchopt.events import Ended, Listener, Noted, Trained, ignore
from batchopt.machine.capacity import Capacity
from batchopt.machine.machine import Machine
from batchopt.measured import DeviceMemory, Epoch
from batchopt.question.options import Budget, Configuration, Options
from batchopt.report.answer.reading import read_evidence
from batchopt.report.answer.recommendation import Report
from batchopt.search.steps import Infeasibility, Step
from batchopt.store.leases import Deleted, LeaseLost, TurnLost
from batchopt.store.ledger import Ledger
from batchopt.store.stamp import Stamp
from batchopt.study.ending import NO_NUMBER, Ending
from batchopt.study.one_at_a_time import one_at_a_time
from batchopt.study.opening import opened_ledger
from batchopt.study.shared import Owning, SharedStudy

Verdict = Literal["continue", "pause", "stop"]
"""What comes after an epoch: the next one of the step; another step, as the trial is paused; nothing, as it is over."""


class Session:
    """A study that is taken part in.

    Args:
        ledger: of the study.
        stamp: its question.
        options, budget: how it is searched, and when it ends.
        capacity: of the machine that trains; told what its epochs take.
        listener: told what happens.
        lost: told the number of a trial that is no longer this session's: what is being done for it is in vain.

    Attributes:
        ending: when a trial has what the goal asks for; `ledger`, `stamp`, `budget` and `capacity` are as given.
    """

    def __init__(
        self,
        ledger: Ledger,
        stamp: Stamp,
        options: Options,
        budget: Budget,
        capacity: Capacity,
        *,
        listener: Listener = ignore,
        lost: Callable[[int], None] = lambda trial: None,
    ) -> None:
        # The numerics of the search take a second to import.
        from batchopt.study.searching import make_search

        self.ledger, self.stamp, self.budget, self.capacity = ledger, stamp, budget, capacity
        self.lost, self.listener = lost, listener
        self.ending = ledger.in_turn(lambda: Ending(ledger, stamp, capacity))
        self._search = make_search(ledger, stamp, options, budget, capacity, self.ending.elsewhere, self.ending.power)
        self._shared = SharedStudy(ledger, self._search, capacity, stamp)
        self._steps: dict[int, Step] = {}
        self._renewed = time.monotonic()
        self._started = time.monotonic() - ledger.elapsed()
        self._held, self.lock = ExitStack(), threading.RLock()

    @classmethod
    def open(
        cls,
        name: str,
        storage: str,
        stamp: Stamp,
        *,
        options: Options | None = None,
        budget: Budget | None = None,
        capacity: Capacity | None = None,
        listener: Listener = ignore,
        check: Callable[[], None] = lambda: None,
    ) -> Self:
        """Join a study, or make it where there is none; use it in a `with`, which releases it.

        Args:
            name: of the study in its database.
            storage: a path, or an SQLAlchemy URL.
            stamp: what is asked, and with which program, seed and search where the study is new.
            options, budget: the defaults where None.
            capacity: of the machine that trains; nothing is known of it where None.
            listener: told what happens.
            check: called while a database is waited for; what it raises ends the waiting.

        Raises:
            StudyMismatch: the study is there, and asks something else.
            StorageError: its database cannot be used.
        """
        options, budget = options or Options(), budget or Budget()
        sizes = [int(size) for size in stamp.space.grid_batch_sizes()]
        with ExitStack() as held:
            ledger, made = opened_ledger(name, storage, stamp, options, listener=listener, check=check, held=held)
            session = cls(ledger, made, options, budget, capacity or Capacity(sizes, None), listener=listener)
            session._held = held.pop_all()
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def others(self) -> int:
        """How many trials other processes hold."""
        return len(self._shared.others)

    def elapsed(self) -> float:
        """The wall seconds of the study, all its sessions together."""
        return time.monotonic() - self._started

    def may_look(self) -> bool:
        """Whether what other processes do was last looked at long enough ago to look again."""
        return self._shared.may_look()

    @one_at_a_time
    def enqueue(self, configurations: Sequence[Configuration]) -> None:
        """Train these first; those that the study has already are not trained again."""

        def put() -> None:
            for configuration in configurations:
                self.ledger.study.enqueue_trial(configuration.params, skip_if_exists=True)

        self.ledger.in_turn(put)

    @one_at_a_time
    def ask(self, owner: Owning = None, *, patience: float = math.inf) -> Step | None:
        """The next step, its trial now held by `owner`; None where there is none now.

        Args:
            owner: names whose the step's trial is to be; this process's where None.
            patience: seconds to wait for this process's turn at asking.

        Raises:
            TurnLost: another process is asking, and nothing was begun; ask again.
        """
        with self.ledger.turn(patience) as mine:
            if not mine:
                raise TurnLost
            step = self._shared.next(self.give_up, owner)
        if step is not None:
            self._steps[step.trial] = step
        return step

    @one_at_a_time
    def state(self, step: Step) -> tuple[int, bytes | None]:
        """From which epoch a step's trial is trained, and the state after it; (0, None) for its beginning."""
        return self._shared.restored(step, lambda text: self.listener(Noted(text)))

    @one_at_a_time
    def tell(
        self,
        trial: int,
        machine: Machine,
        figures: Epoch,
        *,
        compile_seconds: float = 0.0,
        checkpoint: bytes | None = None,
        stopped: bool = False,
    ) -> Verdict:
        """Keep an epoch of a trial that is held, and say what comes after it.

        Args:
            trial: its number.
            machine: that trained it.
            figures: what the epoch came to.
            compile_seconds: what had to be compiled before it, off the training clock.
            checkpoint: the trial's state after it, where that is to be kept.
            stopped: whether training has ended by itself, as a callback may end it.

        Raises:
            LeaseLost: the trial is no longer this process's; nothing was written.
        """
        with self._losing():
            self.ledger.add_epoch(trial, machine, figures, compile_seconds, checkpoint)
        step = self._steps[trial]
        if machine.fingerprint == self.capacity.machine:
            self.capacity.record_epoch(
                step.batch_size, figures.train_seconds, side_by_side=figures.side_by_side, joules=figures.joules
            )
        self._shared.progress[trial].trained(figures)
        self.listener(Trained(trial, figures, compile_seconds))
        if figures.diverged:
            self.rule_out(trial, "diverged", self.ledger.diverge, note="diverged")
            return "stop"
        if figures.valueless:
            self.refuse(trial, NO_NUMBER)
            return "stop"
        over = stopped or self.ending.over(figures)
        if figures.epoch > step.from_epoch or over:
            told = (trial, figures.epoch, self.ending.value(trial, figures), figures.train_seconds)
            self._shared.progress[trial].value = told[2]
            self.ledger.transactions.again(lambda: self._search.tell(*told, over=over))  # a pruner reads the database
        if over:
            end = self.ending.of(trial, step.batch_size, figures)
            self._shared.progress[trial].cost_to_target = end.cost_to_target
            self._end(trial, end.state, lambda number: self.ledger.end(number, end.how), end.note)
        self.give_up(self._search.given_up())
        if over or trial not in self.ledger.owned():
            return "stop"
        return "pause" if figures.epoch >= step.until_epoch else "continue"

    def holds(self, trial: int) -> bool:
        """Whether a trial is held here."""
        return trial in self.ledger.owned()

    @one_at_a_time
    def join(self, machine: Machine, engine: str, memory: DeviceMemory, *, deterministic: bool = False) -> None:
        """Another machine trains for this session, or the same one as it is now."""
        self.ledger.add_machine(machine, engine, deterministic=deterministic)
        self.capacity.record_machine(machine.fingerprint, memory)

    @one_at_a_time
    def keep(self, trial: int, epoch: int, state: bytes) -> None:
        """Keep the state of a trial that is held, so that whoever takes it up goes on from there; raises as `tell`."""
        with self._losing():
            self.ledger.add_checkpoint(trial, epoch, state)

    @one_at_a_time
    def let_go(self, trial: int) -> None:
        """Let a trial go as it is: whoever asks next may take it up."""
        if trial in self.ledger.owned():
            self.ledger.let_go(trial)
            self._shared.forget(trial)

    @one_at_a_time
    def out_of_memory(self, trial: int, fingerprint: str = "", *, by_size: bool = True) -> None:
        """A trial did not fit in memory: it goes on in smaller micro-batches, or neither it nor a larger one is tried.

        `fingerprint` is of the machine that ran out, empty where that is foreseen; `by_size` is false where it was not
        for the batch size, but for building the model.
        """
        step = self._steps[trial]
        at_once, by_size = self.capacity.at_once(step.batch_size), by_size and not (fingerprint and step.extra)
        if by_size and fingerprint and self.capacity.record_out_of_memory(at_once, fingerprint):
            self.ledger.add_memory(self.capacity.rows)
        if by_size and (less := self.capacity.at_once(step.batch_size)) < at_once:
            self.listener(Noted(f"trial {trial}: {at_once} examples at once ran out of memory; now {less} at once"))
            self.let_go(trial)
        else:
            reason: Infeasibility = "memory" if by_size else "untrainable"
            by = self.capacity.bytes_over(step.batch_size)
            self.rule_out(trial, reason, lambda number: self.ledger.exceed_memory(number, by), note="out of memory")

    @one_at_a_time
    def count_death(self, trial: int) -> int:
        """Whoever trained a trial has died; returns how often that happened in a row. Raises as `tell`."""
        with self._losing():
            return self.ledger.count_death(trial)

    @one_at_a_time
    def fail(self, trial: int, why: str, note: str = "") -> None:
        """A trial cannot be trained, for a reason that is not the search's."""
        self._search.infeasible(trial, "failed")
        self._end(trial, "fail", lambda number: self.ledger.fail(number, why), note or why)

    @one_at_a_time
    def refuse(self, trial: int, why: str) -> None:
        """A trial's configuration is none to train: evidence against its corner of the space."""
        self.rule_out(trial, "untrainable", lambda number: self.ledger.refuse(number, why), note=why)

    def rule_out(self, trial: int, reason: Infeasibility, write: Callable[[int], None], *, note: str) -> None:
        """End a trial as evidence against its corner of the space."""
        self._search.infeasible(trial, reason)
        self._end(trial, "pruned", write, note)

    def give_up(self, trials: Sequence[int]) -> None:
        """End trials that will not be trained further."""
        for trial in trials:
            if trial in self.ledger.owned() or self.ledger.begin(trial):
                self._end(trial, "pruned", self.ledger.prune)

    @one_at_a_time
    def renew(self) -> None:
        """Keep what is held here; to be called several times in the time of a lease."""
        if time.monotonic() - self._renewed < self.ledger.records.lease_seconds / 3:
            return
        for trial in self.ledger.renew():
            self._lose(LeaseLost(trial))
        self._keep_time()
        self._renewed = time.monotonic()

    @one_at_a_time
    def end(self, why: str = "") -> None:
        """The study is over, or its time is: what nobody else trains is given up, and it is said why."""
        self.give_up(self._shared.left() if why else self._search.given_up())
        self.listener(Ended(why or self._search.stop_reason))

    @one_at_a_time
    def release(self) -> None:
        """Let everything go; what cannot be written any more expires by itself."""
        with self._held:
            for last in (self._keep_time, self.ledger.release):
                with suppress(StorageError):
                    last()

    def report(self) -> Report:
        """What the study has found so far."""
        return read_evidence(self.ledger.database, self.ledger.study.study_name).report

    def _end(self, trial: int, state: str, write: Callable[[int], None], note: str = "") -> None:
        try:
            write(trial)
        except LeaseLost as lost:
            self._lose(lost)
            return
        self._steps.pop(trial, None)
        self.listener(self._shared.ended(trial).ended(trial, state, note, self.stamp.metric))
        self._keep_time()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Takes note of a trial that is lost meanwhile."""
        try:
            yield
        except LeaseLost as lost:
            self._lose(lost)
            raise

    def _lose(self, lost: LeaseLost) -> None:
        self.listener(Noted(f"{lost}; discarding this process's results for it"))
        self._shared.forget(lost.trial)
        self._steps.pop(lost.trial, None)
        if isinstance(lost, Deleted):
            self._search.infeasible(lost.trial, "failed")
            self._shared.ended(lost.trial)
        self.lost(lost.trial)

    def _keep_time(self) -> None:
        self.ledger.set_elapsed(self.elapsed())
