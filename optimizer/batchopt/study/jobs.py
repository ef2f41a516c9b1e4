"""A session whose trials are trained by jobs that come and go: each step has a lease of its own, which names the step.

What a session knows of its jobs it could forget: what it needs stands in the lease's name and in the database. So a
server may be killed at any moment, and another one of the same database answers the job's next call. Who asks waits
for the search to decide; who tells does not (`telling.py`).
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace

from batchopt.errors import InvalidInput
from batchopt.events import Listener, ignore
from batchopt.machine.capacity import Capacity
from batchopt.optuna_private import trial_id_of
from batchopt.question.options import Budget, Options
from batchopt.search.steps import Step
from batchopt.search.stopping import is_hopeless, may_stop
from batchopt.store.attributes import LEASE
from batchopt.store.history import as_trial, read_trials
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.store.ledger import Ledger
from batchopt.store.stamp import Stamp
from batchopt.study.ending import Ending
from batchopt.study.held_jobs import Job, epochs_of
from batchopt.study.job_memory import JobMemory
from batchopt.study.one_at_a_time import one_at_a_time
from batchopt.study.session import Session
from batchopt.study.shared import Owner
from batchopt.study.telling import Telling

JOBS = "job:"
"""What the names of jobs' leases begin with; no process's name does."""

DEATHS_ALLOWED = 3
"""How often in a row a trial's jobs may die before its next epoch; then it counts as what cannot be trained."""

HURRY_S, HURRIED = 4.0, 4
"""Steps are decided on ahead where so many jobs were given some in so many seconds: what is told in the second until
the next one asks would hardly change it, beside all that is under way."""

TIME_KEPT_S = 10.0
"""How often the study's wall time is written."""


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


@dataclass
class Asking:
    """A job that wants a step.

    Attributes:
        client: its name, any text.
        machine: that it trains on, any text; kept with the trial.
        can_pause: whether the job may be told to pause; else its steps last until the last epoch.
        largest: batch size that fits there; any where None.
        most: the largest to give it, where that is known.
        answer: the step; None where there is none now.
    """

    client: str
    machine: str
    can_pause: bool
    largest: int | None = None
    most: float = math.inf
    answer: Future[Work | None] = field(default_factory=Future)

    @property
    def prefix(self) -> str:
        """What the names of its leases begin with."""
        return f"{JOBS}{hashlib.sha256(self.client.encode()).hexdigest()[:16]}:"


class JobSession(Session):
    """A session for jobs that are named by whoever runs them; arguments as of `Session`.

    Attributes:
        telling: keeps what jobs tell.
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
    ) -> None:
        super().__init__(ledger, stamp, options, budget, capacity, listener=listener)
        own = Ledger(
            ledger.database,
            ledger.study,
            lease_seconds=options.lease,
            transactions=ledger.transactions,
            checkpoint_limit=options.checkpoint_limit,
            checkpoints=options.checkpoints,
        )
        self.telling = Telling(own, own.in_turn(lambda: Ending(own, stamp, capacity)), stamp.metric, listener)
        self._memory = JobMemory(ledger, stamp.space)
        self._kept_time = time.monotonic()
        self._given_to: dict[str, float] = {}
        self._ahead: dict[int, str] = {}

    @property
    def done(self) -> str:
        """Why there are no more steps, in one line; empty where there are, or may be."""
        return "" if self.others else self._search.stop_reason

    def remembered(self, name: str, asked: object, *, anew: bool = False) -> tuple[object, bool]:
        """How this study was first asked for, as JSON values kept by a name, and whether that was now.

        Args:
            name: of what is kept.
            asked: JSON values.
            anew: whether they take the place of what is kept, where no epoch was told yet and nobody trains.
        """

        def remember() -> tuple[object, bool]:
            kept = self.ledger.study.user_attrs.get(name)
            now = kept is None or (anew and self._untold())
            if now:
                self.ledger.study.set_user_attr(name, asked)
            return (asked, True) if now else (kept, False)

        return self.ledger.in_turn(remember)

    def _untold(self) -> bool:
        ids = {trial_id_of(trial) for trial in self.ledger.study.get_trials(deepcopy=False)}
        records = self.ledger.records
        return not any(records.epochs(ids).values()) and not ids & records.leased().keys()

    def ask_for(
        self, client: str, machine: str, *, can_pause: bool, patience: float, largest: int | None = None
    ) -> Work | None:
        """The open step of a client, else a new one; None where there is none now; arguments as of `Asking`.

        Args:
            patience: as in `ask`, and raises as it does.

        Raises:
            TurnLost: another process is asking, and nothing was begun; ask again.
            InvalidInput: the machine holds no batch size of the study.
        """
        asking = Asking(client, machine, can_pause=can_pause, largest=largest)
        self.ask_together([asking], patience=patience)
        return asking.answer.result()

    @one_at_a_time
    def ask_together(self, askings: Sequence[Asking], *, patience: float) -> None:
        """Answer all of these, the new steps in one turn: what others have done is looked at once for all of them.

        Args:
            askings: each of which is answered as soon as it can be, by what `ask_for` returns or raises.
            patience: as in `ask`.
        """
        try:
            self._let_expire()
            self._memory.learn()
            new = [asking for asking in askings if not self._answer_open(asking)]
            if not new:
                return
            with self.ledger.turn(patience) as mine:
                if not mine:
                    raise TurnLost
                look = True
                for asking in new:
                    asking.answer.set_result(self._begun(asking, look=look))
                    look = False
        except BaseException as error:
            for asking in askings:
                if not asking.answer.done():
                    asking.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        self._keep_wall_time()

    @one_at_a_time
    def decide_ahead(self) -> None:
        """Where many ask, decide on a step before the next one does; to be called when nobody waits.

        Jobs that ask alone, or a few of them, are always decided for by all that was told.
        """
        now = time.monotonic()
        self._given_to = {client: at for client, at in self._given_to.items() if now - at < HURRY_S}
        if len(self._given_to) < HURRIED or not self._memory.alike():
            return
        with suppress(TurnLost), self.ledger.turn(0.0) as mine:
            if mine:
                self._search.limit(self._limit(self._memory.largest_of_any()))
                self._ahead |= self._shared.decide_ahead(self.give_up)

    def _answer_open(self, asking: Asking) -> bool:
        """Answer who has a trial, or cannot be given one; returns whether that was so."""
        try:
            asking.most = self._memory.largest(asking.client, asking.machine, asking.largest)
            work = self._open_work(asking.prefix, asking.machine)
        except InvalidInput as refusal:
            asking.answer.set_exception(refusal)
            return True
        if work is None:
            return False
        asking.answer.set_result(work)
        return True

    def _begun(self, asking: Asking, *, look: bool) -> Work | None:
        """A new step for a job, in this process's turn; None where there is none now."""

        def owner(step: Step) -> Owner:
            until = step.until_epoch if asking.can_pause else self.ending.last_epoch
            lease = f"{asking.prefix}{secrets.token_hex(8)}:{step.from_epoch}-{until}"
            reason = self._ahead.get(step.trial, step.reason)
            return Owner(lease, {LEASE: {"lease": lease, "machine": asking.machine, "reason": reason}})

        machine, most = asking.machine, asking.most
        self._search.limit(self._limit(most))
        self.telling.meet(machine)
        while (step := self._shared.next(self.give_up, owner, look=look)) is not None:
            look = True
            self._steps[step.trial] = step
            lease = self.ledger.holder(step.trial)
            assert lease is not None
            if step.batch_size <= most:
                self._given_to[asking.client] = time.monotonic()
                reason = self._ahead.pop(step.trial, step.reason)
                return self._given(replace(step, until_epoch=epochs_of(lease)[1], reason=reason), machine, lease)
            self._hand_over(step, machine, lease)
            if step.batch_size <= self._memory.largest_of_any():
                # For whoever has the memory.
                self.telling.let_go(step.trial, lease)
                return None
            self.telling.exceed_memory(step.trial, lease)
        return None

    @one_at_a_time
    def gives_up(self, trial: int, epoch: int) -> bool:
        """Whether a job's trial that cannot be paused is not worth what is left of it, after an epoch that was told."""
        goal, sign = self.stamp.goal, self.stamp.metric.sign
        if not may_stop(epoch, goal.epochs):
            return False
        records = self.ledger.transactions.again(lambda: read_trials(self.ledger.study, self.ledger.records))
        whole = [record for record in records if self.stamp.space.distributions().keys() <= record.params.keys()]
        known = [as_trial(record, held=True, max_epochs=goal.epochs, counts=goal.value, sign=sign) for record in whole]
        return is_hopeless(known, trial, self.stamp.space, max_epochs=goal.epochs, sign=sign)

    def release(self) -> None:
        """Close the session; what jobs hold stays theirs."""
        self.telling.close()
        super().release()

    def _given(self, step: Step, machine: str, lease: str) -> Work:
        epoch = self.ledger.checkpoint_epoch(step.trial) if step.from_epoch else 0
        self._hand_over(step, machine, lease)
        return Work(step, epoch if epoch < step.until_epoch else 0, lease)

    def _hand_over(self, step: Step, machine: str, lease: str) -> None:
        """From now on the trial is its job's; what becomes of it the search hears from the database."""
        progress = self._shared.progress[step.trial]
        job = Job(lease, step.until_epoch, self.telling.meet(machine), progress)
        self.telling.begun(step.trial, job, self.ledger)
        self._shared.forget(step.trial)
        self._steps.pop(step.trial, None)

    def _open_work(self, prefix: str, machine: str) -> Work | None:
        for trial, lease in self.ledger.leases_of(prefix):
            with suppress(LeaseLost):
                job, (from_epoch, until_epoch) = self.telling.job(trial, lease), epochs_of(lease)
                told = job.progress.epochs
                if from_epoch < until_epoch <= told:
                    # Paused, and its job asks for another step: this one is anyone's now.
                    self.telling.let_go(trial, lease)
                    continue
                self.telling.renew(trial, lease)
                extra = self.ledger.frozen(trial).params
                size, rate = job.progress.batch_size, job.progress.learning_rate
                step = Step(
                    trial,
                    size,
                    rate,
                    until_epoch,
                    from_epoch,
                    extra={name: extra[name] for name in self.stamp.space.extra},
                    reason="taken up again",
                )
                epoch = self.ledger.checkpoint_epoch(trial) if told else 0
                return Work(step, epoch if epoch < until_epoch else 0, lease)
        return None

    def _let_expire(self) -> None:
        """Let go what jobs hold that were not heard of for longer than a lease."""
        if not self.ledger.expired(JOBS):
            return
        with self.ledger.turn(0.0) as mine:
            for trial, lease in self.ledger.expired(JOBS) if mine else []:
                with suppress(LeaseLost):
                    if self.telling.count_death(trial, lease) >= DEATHS_ALLOWED:
                        why = f"its jobs died {DEATHS_ALLOWED} times before the same epoch"
                        self.telling.fail(trial, lease, why)
                    else:
                        self.telling.let_go(trial, lease)

    def _limit(self, most: float) -> int | None:
        """The same as the search has it."""
        return None if most == math.inf else int(most)

    def _keep_wall_time(self) -> None:
        if time.monotonic() - self._kept_time > TIME_KEPT_S:
            self._kept_time = time.monotonic()
            self._keep_time()
