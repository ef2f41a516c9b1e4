"""The loop of a study: hand a step to every free worker, write down what comes back, keep the leases, until done.

One process writes, so several workers do not contend for the database; it never touches the device.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait

from optimizer import errors
from optimizer.capacity import Capacity
from optimizer.report.events import Ended, Listener, Noted, Stepped, Trained, TrialEnded
from optimizer.search.steps import Search, Step
from optimizer.seat import Progress, Seat, as_error
from optimizer.signals import Interruption
from optimizer.store.ledger import Ledger
from optimizer.store.records import LEASE_SECONDS
from optimizer.training.client import Died, Worker
from optimizer.training.messages import Answer, EpochDone, Failed, Ready, Remark, Save, Saved, Setup, Train

DEATHS_ALLOWED = 3
"""A trial whose worker dies this often fails: it, and not chance, kills them."""

WORKER_GROWTH_BYTES = 1 << 30
"""A worker that has grown by this much is replaced between two trials: TensorFlow gives memory back only at exit."""

NEARLY_ALL = 0.9
"""Of the device's memory: signal 9 above this is taken for the kernel's, for want of memory."""

TICK_SECONDS = 0.2
"""How often the loop looks up from waiting, for signals and leases."""


class Loop:
    """Runs one session of a study.

    Args:
        ledger: where everything is written.
        search: what decides.
        seats: the workers; the first is ready.
        capacity: what the machine holds; told what is found out.
        unfinished: trials of this process that were begun in an earlier session, by number.
        seed: the study's.
        max_epochs: epochs of a whole trial.
        until: the wall-clock time (`time.monotonic`) at which the session ends; None for no end.
        interruption: looked at between any two writes.
        listener: told what happens.
    """

    def __init__(
        self,
        ledger: Ledger,
        search: Search,
        seats: Sequence[Seat],
        *,
        capacity: Capacity,
        unfinished: Mapping[int, Progress],
        seed: int,
        max_epochs: int,
        until: float | None,
        interruption: Interruption,
        listener: Listener,
    ) -> None:
        self._ledger = ledger
        self._search = search
        self._seats = list(seats)
        self._capacity = capacity
        self._seed = seed
        self._max_epochs = max_epochs
        self._until = until
        self._interruption = interruption
        self._listener = listener
        self._deaths: Counter[int] = Counter()
        self._progress = dict(unfinished)
        self._renewed = time.monotonic()
        self._started = time.monotonic() - ledger.elapsed()

    def run(self) -> None:
        """Go on until the search has no more steps, or time is up.

        Raises:
            Interrupted: by a signal; unfinished trials stay RUNNING and nobody's.
            TaskFailed: the user's own code raised.
            BatchoptError: a worker met something the user can mend.
        """
        try:
            while not self._late() and self._hand_out():
                self._interruption.check()
                for seat in self._seats_with_news():
                    self._hear(seat)
                self._keep_leases()
            late = self._late()
            self._give_up(self._ledger.owned() if late else self._search.given_up())
            self._listener(Ended("the time budget is used up" if late else self._search.stop_reason))
        finally:
            for seat in self._seats:
                seat.worker.kill()
            self._ledger.set_elapsed(time.monotonic() - self._started)
            self._ledger.release()

    def _late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _hand_out(self) -> bool:
        """Give every free worker a step; False when there is none to give and none under way."""
        while any(seat.free for seat in self._seats):
            step = self._search.next()
            if step is None:
                break
            self._give(step)
        return any(seat.step is not None or seat.ready is None for seat in self._seats)

    def _give(self, step: Step) -> None:
        """Hand a step to the worker that holds its trial, or else to a free one."""
        if step.trial not in self._ledger.owned():
            self._ledger.begin(step.trial)
        free = [seat for seat in self._seats if seat.free]
        held = (step.trial, step.from_epoch)
        seat = next((seat for seat in free if seat.held == held), free[0])
        self._progress.setdefault(step.trial, Progress(step.batch_size, step.learning_rate))
        largest = self._capacity.max_batch_size
        if largest is not None and step.batch_size > largest:
            # Queued, or begun on a larger machine.
            self._exceed_memory(step)
            return
        self._listener(Stepped(step))
        if seat.held != held:
            self._put_aside(seat)
        self._train(seat, step)

    def _train(self, seat: Seat, step: Step) -> None:
        from_epoch, checkpoint = step.from_epoch, None
        if from_epoch and seat.held != (step.trial, from_epoch):
            # Without its checkpoint a trial starts over: its epochs come out as they did.
            from_epoch, checkpoint = self._ledger.checkpoint(step.trial) or (0, None)
        seat.step = step
        seat.held = None
        seat.worker.send(
            Train(
                trial=step.trial,
                study_seed=self._seed,
                batch_size=step.batch_size,
                learning_rate=step.learning_rate,
                extra=dict(step.extra),
                from_epoch=from_epoch,
                until_epoch=step.until_epoch,
                checkpoint=checkpoint,
            )
        )

    def _put_aside(self, seat: Seat) -> None:
        """Keep the state of the unfinished trial that a worker holds, before it trains another."""
        if seat.held is not None and seat.held[0] in self._ledger.owned():
            seat.worker.send(Save(seat.held[0]))
            try:
                answer = seat.worker.receive()
            except Died:
                seat.worker.kill()
                self._replace(seat)
                return
            if isinstance(answer, Saved):
                self._ledger.add_checkpoint(answer.trial, answer.epoch, answer.checkpoint)
        if seat.bytes - seat.first_bytes > WORKER_GROWTH_BYTES:
            seat.worker.kill()
            self._replace(seat)

    def _seats_with_news(self) -> list[Seat]:
        by_connection = {seat.worker.connection: seat for seat in self._seats}
        timeout = TICK_SECONDS if any(seat.step or not seat.ready for seat in self._seats) else 0
        return [by_connection[connection] for connection in wait(list(by_connection), timeout)]  # type: ignore[index]

    def _hear(self, seat: Seat) -> None:
        try:
            answer: Answer = seat.worker.receive()
        except Died as death:
            self._bury(seat, death)
            return
        if isinstance(answer, Ready):
            self._seat_again(seat, answer)
        elif isinstance(answer, Remark):
            self._listener(Noted(answer.text))
        elif isinstance(answer, EpochDone):
            self._write_down(seat, answer)
        elif isinstance(answer, Failed):
            self._meet_failure(seat, answer)

    def _write_down(self, seat: Seat, done: EpochDone) -> None:
        step, figures = seat.step, done.figures
        assert step is not None and seat.ready is not None, "an epoch belongs to a step"
        seat.bytes = done.worker_bytes
        seat.first_bytes = seat.first_bytes or done.worker_bytes
        if self._has_company(seat):
            figures = dataclasses.replace(figures, side_by_side=True)
        self._ledger.add_epoch(step.trial, seat.ready.machine, figures, done.compile_seconds)
        self._capacity.trained(step.batch_size, figures.train_seconds, side_by_side=figures.side_by_side)
        progress = self._progress[step.trial]
        if figures.epoch > progress.epochs:
            progress.epochs = figures.epoch
            progress.accuracy = figures.validation_accuracy
            progress.train_seconds += figures.train_seconds
        self._listener(Trained(step.trial, figures, done.compile_seconds))
        if figures.diverged:
            seat.step = None
            self._ledger.diverge(step.trial)
            self._search.infeasible(step.trial, "diverged")
            self._end(step.trial, "pruned", note="diverged")
            return
        if figures.epoch == step.until_epoch:
            seat.step = None
            seat.held = (step.trial, figures.epoch)
        if figures.epoch > step.from_epoch:
            self._search.tell(step.trial, figures.epoch, figures.validation_accuracy, figures.train_seconds)
        if figures.epoch == self._max_epochs:
            self._ledger.complete(step.trial, figures.validation_accuracy)
            self._end(step.trial, "complete")
        self._give_up(self._search.given_up())

    def _meet_failure(self, seat: Seat, failed: Failed) -> None:
        if failed.kind == "memory" and seat.step is not None and seat.ready is not None:
            self._run_out(seat, seat.step)
            return
        raise as_error(failed)

    def _run_out(self, seat: Seat, step: Step) -> None:
        """A worker ran out of memory: that size and all larger ones are out, and another worker goes on."""
        self._capacity.exclude(step.batch_size)
        self._ledger.add_memory(self._capacity.rows)
        self._exceed_memory(step)
        seat.worker.kill()
        self._replace(seat)

    def _exceed_memory(self, step: Step) -> None:
        self._ledger.exceed_memory(step.trial, self._capacity.bytes_over(step.batch_size))
        self._search.infeasible(step.trial, "memory")
        self._end(step.trial, "pruned", note="out of memory")

    def _seat_again(self, seat: Seat, ready: Ready) -> None:
        """A worker is ready, the first of its seat or a later one, on the machine that there is now."""
        was = seat.ready.machine if seat.ready is not None else None
        if was is not None and was.fingerprint != ready.machine.fingerprint:
            if was.kind == "gpu" != ready.machine.kind:
                raise errors.DeviceError(
                    f"the GPU {was.device} is gone; everything finished is kept. Bring it back, or use --device cpu."
                )
            self._listener(Noted(f"the machine has changed: {was.cores} cores before, {ready.machine.cores} now"))
        seat.ready = ready
        self._ledger.add_machine(ready.machine, ready.engine)

    def _has_company(self, seat: Seat) -> bool:
        """Whether another worker uses the same device; the cores of one processor share its memory and clock."""
        mine = seat.worker.setup.device
        cpu = seat.ready is None or seat.ready.machine.kind == "cpu"
        return any(cpu or other.worker.setup.device == mine for other in self._seats if other is not seat)

    def _needs_all(self, batch_size: int) -> bool:
        """Whether a batch size comes so near the end of memory that a killed worker is likely to have met it."""
        need, memory = self._capacity.needed(batch_size), self._capacity.memory
        return need is not None and memory is not None and need > NEARLY_ALL * memory.capacity_bytes

    def _bury(self, seat: Seat, death: Died) -> None:
        """A worker died: replace it, and go on with its trial, unless the trial seems to be the cause."""
        step = seat.step
        seat.worker.kill()
        if step is None:
            raise errors.WorkerDied(str(death))
        if death.out_of_memory or (death.killed and self._needs_all(step.batch_size)):
            self._run_out(seat, step)
            return
        self._deaths[step.trial] += 1
        if self._deaths[step.trial] < DEATHS_ALLOWED:
            self._listener(Noted(f"trial {step.trial}: {str(death).splitlines()[0]}; it is taken up again"))
            self._replace(seat)
            # Sent before the worker is ready, and answered after.
            self._train(seat, step)
            return
        self._ledger.fail(step.trial, str(death))
        self._search.infeasible(step.trial, "failed")
        self._end(step.trial, "fail", note=str(death).splitlines()[0])
        self._replace(seat)

    def _replace(self, seat: Seat) -> None:
        """Put a new worker in a seat; it does not choose its engine again."""
        assert seat.ready is not None
        setup: Setup = dataclasses.replace(seat.worker.setup, engine=seat.ready.engine)
        seat.worker = Worker(setup)
        seat.step = seat.held = None
        seat.first_bytes = seat.bytes = 0

    def _give_up(self, trials: Sequence[int]) -> None:
        for trial in trials:
            self._ledger.prune(trial)
            self._end(trial, "pruned")

    def _end(self, trial: int, state: str, note: str = "") -> None:
        progress = self._progress.pop(trial)
        self._listener(
            TrialEnded(
                trial=trial,
                state=state,
                batch_size=progress.batch_size,
                learning_rate=progress.learning_rate,
                accuracy=progress.accuracy,
                epochs=progress.epochs,
                train_seconds=progress.train_seconds,
                note=note,
            )
        )
        self._ledger.set_elapsed(time.monotonic() - self._started)

    def _keep_leases(self) -> None:
        if time.monotonic() - self._renewed > LEASE_SECONDS / 3:
            self._ledger.renew()
            self._renewed = time.monotonic()
