"""What jobs tell of their trials, kept without waiting for what the search is thinking over.

One thread writes the epochs of a study, and writes all that wait in one transaction: many jobs are answered as soon as
one would be. The search learns of them from the database when it is asked next, whichever server wrote them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from queue import Empty, SimpleQueue

from batchopt.errors import InvalidInput
from batchopt.events import Listener, Trained
from batchopt.measured import Epoch
from batchopt.question.metric import Metric
from batchopt.question.space import BATCH_SIZE
from batchopt.store.attributes import OUT_OF_MEMORY
from batchopt.store.ends import failed, out_of_memory
from batchopt.store.leases import LeaseLost
from batchopt.store.ledger import Ledger
from batchopt.store.together import Told
from batchopt.study.ending import End, Ending
from batchopt.study.held_jobs import HeldJobs, Job
from batchopt.study.session import Verdict


@dataclass(frozen=True)
class _Saying:
    """An epoch on its way to the writing thread."""

    trial: int
    lease: str
    figures: Callable[[int], Epoch]
    alone: bool
    answer: Future[Verdict]


class Telling(HeldJobs):
    """Writes what jobs tell of one study; its methods may be called from any thread.

    Args:
        ledger: of the study, and of nobody else.
        ending: of its trials, made with that ledger.
        metric: what the study watches.
        listener: told what happens.
    """

    def __init__(self, ledger: Ledger, ending: Ending, metric: Metric, listener: Listener) -> None:
        super().__init__(ledger, ending.power.max_w)
        self._ending = ending
        self._metric, self._listener = metric, listener
        self._said: SimpleQueue[_Saying | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Write what was told, and end the thread; what jobs hold stays theirs."""
        self._said.put(None)
        self._writer.join()

    def tell(self, trial: int, lease: str, figures: Callable[[int], Epoch], *, alone: bool = False) -> Future[Verdict]:
        """Keep an epoch of a job's trial, once however often it is told.

        Args:
            trial, lease: the job's.
            figures: what the epoch came to, by the trial's batch size.
            alone: whether those before it need not have been told.

        Returns:
            What comes after it. Or the exception: LeaseLost, where the trial is no longer the job's and nothing was
            written; InvalidInput, for an epoch beyond the last, or before which others are missing.
        """
        answer: Future[Verdict] = Future()
        self._said.put(_Saying(trial, lease, figures, alone, answer))
        return answer

    def complete(self, trial: int, lease: str) -> None:
        """Training has ended by itself: the last epoch that was told is what the trial comes to.

        Raises:
            LeaseLost: the trial is no longer the job's.
            InvalidInput: it has no epoch.
        """
        with self._ends(trial, lease) as job:
            rows = self._rows(trial)
            if not rows or rows[-1]["value"] is None:
                raise InvalidInput(f"trial {trial} has no epoch yet. Tell one, give `value`, or :release it.")
            last = Epoch(**{field.name: rows[-1][field.name] for field in fields(Epoch)})
            self._end(trial, job, self._ending.of(trial, job.progress.batch_size, last))

    def diverge(self, trial: int, lease: str) -> None:
        """The loss of a trial is not finite; raises LeaseLost."""
        with self._ends(trial, lease) as job:
            self._end(trial, job, self._ending.diverged())

    def exceed_memory(self, trial: int, lease: str) -> None:
        """A trial did not fit on its job's machine; raises LeaseLost."""
        with self._ends(trial, lease) as job:
            # By how much, nobody has said.
            self._end(trial, job, End("pruned", out_of_memory(1.0), OUT_OF_MEMORY))

    def prune(self, trial: int, lease: str) -> None:
        """A trial is stopped before its last epoch, and its curve stays evidence; raises LeaseLost."""
        with self._ends(trial, lease) as job:
            self._end(trial, job, self._ending.stopped())

    def fail(self, trial: int, lease: str, why: str) -> None:
        """A trial cannot be trained, for a reason that is not the search's; raises LeaseLost."""
        with self._ends(trial, lease) as job:
            self._end(trial, job, End("fail", failed(why), why))

    def _write(self) -> None:
        """What the writing thread does: of each trial one epoch at a time, of all trials that wait together."""
        waiting: list[_Saying] = []
        closing = False
        while waiting or not closing:
            said = [] if waiting else [self._said.get()]
            with suppress(Empty):
                while True:
                    said.append(self._said.get_nowait())
            closing = closing or None in said
            waiting += [saying for saying in said if saying is not None]
            first: dict[int, _Saying] = {}
            for saying in waiting:
                first.setdefault(saying.trial, saying)
            together = list(first.values())
            waiting = [saying for saying in waiting if first[saying.trial] is not saying]
            try:
                self._keep(together)
            except BaseException as error:  # noqa: BLE001  who has told hears of it
                for saying in together:
                    if not saying.answer.done():
                        saying.answer.set_exception(error)

    def _keep(self, sayings: Sequence[_Saying]) -> None:
        """Keep epochs, and the ends of the trials that are over with them, in one transaction."""
        told: list[tuple[_Saying, Job, Epoch, End | None]] = []
        for saying in sayings:
            with _answering(saying):
                if (checked := self._checked(saying)) is not None:
                    told.append((saying, *checked, self._end_after(saying.trial, *checked)))
        rows = [
            Told(
                saying.trial,
                job.machine.fingerprint,
                figures if figures.epoch > job.progress.epochs else None,
                None if end is None else end.how,
            )
            for saying, job, figures, end in told
        ]
        lost = self._ledger.keep_together(rows) if rows else set()
        for saying, job, figures, end in told:
            if saying.trial in lost:
                with _answering(saying):
                    self._answer_late(saying, figures)
                continue
            if figures.epoch > job.progress.epochs:
                job.progress.trained(figures)
                self._listener(Trained(saying.trial, figures, 0.0))
            if end is not None:
                self._has_ended(saying.trial, job, end)
                saying.answer.set_result("stop")
            else:
                saying.answer.set_result("pause" if figures.epoch >= job.until_epoch else "continue")

    def _checked(self, saying: _Saying) -> tuple[Job, Epoch] | None:
        """A job and its epoch, in its place; None where the trial is lost and that was answered."""
        try:
            job = self.job(saying.trial, saying.lease)
        except LeaseLost:
            self._answer_late(saying, None)
            return None
        figures, last = saying.figures(job.progress.batch_size), self._ending.last_epoch
        self._metric.check(figures.value)
        if figures.epoch > last:
            raise InvalidInput(f"epoch {figures.epoch}: a trial of this study has {last}.")
        if figures.epoch > job.progress.epochs + 1 and not saying.alone:
            # Those before it may have been told to another server.
            job = self._adopted(saying.trial, saying.lease)
        expected = job.progress.epochs + 1
        if figures.epoch > expected and not saying.alone:
            raise InvalidInput(f"epoch {figures.epoch}: epoch {expected} was not told yet. Tell them in order.")
        if self._ending.counts_joules and figures.joules is None and not figures.valueless:
            raise InvalidInput(f"epoch {figures.epoch}: give `energy_joules`, as the goal of this study is energy.")
        return job, figures

    def _answer_late(self, saying: _Saying, figures: Epoch | None) -> None:
        """Of a trial that is not the job's any more: what was kept of it before its end is no error."""
        frozen = self.ended_by(saying.trial, saying.lease)
        if frozen is not None:
            epoch = (figures or saying.figures(frozen.params.get(BATCH_SIZE, 1))).epoch
            if epoch in frozen.intermediate_values:
                saying.answer.set_result("stop")
                return
        raise LeaseLost(saying.trial)

    def _end_after(self, trial: int, job: Job, figures: Epoch) -> End | None:
        """How a trial ends with an epoch; None where it goes on."""
        if figures.valueless:
            return self._ending.without_value(figures)
        return self._ending.of(trial, job.progress.batch_size, figures) if self._ending.over(figures) else None

    def _end(self, trial: int, job: Job, end: End) -> None:
        self._ledger.end(trial, end.how)
        self._has_ended(trial, job, end)

    def _has_ended(self, trial: int, job: Job, end: End) -> None:
        self._jobs.pop(trial, None)
        job.progress.cost_to_target = end.cost_to_target
        self._listener(job.progress.ended(trial, end.state, end.note, self._metric))

    @contextmanager
    def _ends(self, trial: int, lease: str) -> Iterator[Job]:
        """A job's trial, to be ended."""
        self.renew(trial, lease)
        yield self.job(trial, lease)


@contextmanager
def _answering(saying: _Saying) -> Iterator[None]:
    """What goes wrong with one trial is its job's to hear, and no other's."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001  raised where the answer is waited for
        saying.answer.set_exception(error)
