"""The loop of a study: hand a step to every free worker, write down what comes back, keep the leases, until done.

One process writes, so several workers do not contend for the database; it never touches the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from batchopt import errors
from batchopt.events import Ended, Listener, Noted, Stepped, Trained
from batchopt.machine.capacity import Capacity
from batchopt.search.steps import Infeasibility, Search, Step
from batchopt.signals import Interruption
from batchopt.store.leases import Deleted, LeaseLost, TurnLost
from batchopt.store.ledger import Ledger
from batchopt.study.ending import Ending
from batchopt.study.session import TURN_PATIENCE_S, SharedStudy
from batchopt.training.messages import Answer, EpochDone, Failed, Ready, Remark, Saved
from batchopt.workers.probing import Room
from batchopt.workers.process import Died
from batchopt.workers.slot import DEATHS_ALLOWED, Seat, as_error, with_news

TICK_SECONDS = 0.2
"""How often the loop looks up from waiting, for signals and leases."""


class Loop:
    """Runs one session of a study.

    Args:
        ledger: where everything is written.
        search: what decides.
        shared: the study as this process and the others make it.
        seats: the workers; the first is ready.
        capacity: what the machine holds; told what is found out.
        ending: when a trial has what the study's goal asks for, and how that is put down.
        seed: the study's.
        until: the wall-clock time (`time.monotonic`) at which the session ends; None for no end.
        interruption, listener: looked at between any two writes; told what happens.
    """

    def __init__(
        self,
        ledger: Ledger,
        search: Search,
        shared: SharedStudy,
        seats: Sequence[Seat],
        *,
        capacity: Capacity,
        ending: Ending,
        seed: int,
        until: float | None,
        interruption: Interruption,
        listener: Listener,
    ) -> None:
        self._ledger, self._search, self._shared = ledger, search, shared
        self._seats = list(seats)
        self._capacity = capacity
        self._ending = ending
        self._seed = seed
        self._until = until
        self._interruption = interruption
        self._listener = listener
        self._progress = shared.progress
        self._room = Room(listener)
        self._save_seconds = 0.0
        self._news, self._waiting = True, False
        self._renewed = time.monotonic()
        self._started = time.monotonic() - ledger.elapsed()

    def run(self) -> None:
        """Go on until the search has no more steps, or time is up.

        Raises:
            Interrupted: by a signal; unfinished trials stay RUNNING and nobody's.
            TaskFailed: the user's own code raised.
            BatchoptError: a worker met something the user can mend, or the database refuses.
        """
        try:
            while not self._late() and self._hand_out():
                self._interruption.check()
                for seat in with_news(self._seats, TICK_SECONDS):
                    self._hear(seat)
                self._room.waited_for([seat.worker for seat in self._seats])
                self._keep_leases()
            late = self._late()
            self._give_up(self._shared.left() if late else self._search.given_up())
            self._listener(Ended("the time budget is used up" if late else self._search.stop_reason))
        finally:
            # Where nothing can be written any more, leases expire by themselves.
            for last in (self._keep_time, self._ledger.release):
                with contextlib.suppress(errors.StorageError):
                    last()

    def _late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _hand_out(self) -> bool:
        """Give every free worker a step; False when there is none to give and none under way, here or elsewhere."""
        if not any(seat.free for seat in self._seats):
            return True
        while any(seat.free for seat in self._seats) and (self._news or self._shared.may_look()):
            try:
                with self._ledger.turn(TURN_PATIENCE_S) as mine:
                    step = self._shared.next(self._give_up) if mine else None
            except TurnLost:
                mine = False
            if not mine:
                return True
            if step is None:
                self._news = False
                self._lay_down()
                break
            self._give(step)
        if any(seat.step is not None or (seat.ready is None and seat.sure) for seat in self._seats):
            return True
        if self._shared.others and not self._waiting:
            self._listener(Noted(f"nothing to do here; waiting for {self._shared.elsewhere}"))
        self._waiting = bool(self._shared.others)
        return self._waiting

    def _lay_down(self) -> None:
        """Nothing to do now: what the free workers hold may be taken up elsewhere."""
        for seat in self._seats:
            if seat.free:
                self._put_aside(seat)

    def _give(self, step: Step) -> None:
        """Hand a step to the worker that holds its trial, or else to a free one."""
        free, held = [seat for seat in self._seats if seat.free], (step.trial, step.from_epoch)
        seat = next((seat for seat in free if seat.held == held), free[0])
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
        """Have a step trained by its seat's worker; where that is not ready yet, it answers when it is."""
        if not (seat.awake or seat.sure):
            # Whoever is free takes it up.
            self._let_go(step.trial)
            return
        from_epoch, checkpoint = step.from_epoch, None
        if seat.held != (step.trial, from_epoch):
            from_epoch, checkpoint = self._shared.restored(step, lambda text: self._listener(Noted(text)))
        seat.train(
            step,
            from_epoch,
            checkpoint,
            study_seed=self._seed,
            last_epoch=self._ending.last_epoch,
            save_seconds=self._save_seconds,
            until_accuracy=self._ending.target,
        )

    def _put_aside(self, seat: Seat) -> None:
        """Keep the state of the unfinished trial that a worker holds, before it trains another; it is anyone's then."""
        held, seat.held = seat.held, None
        if held is not None and held[0] in self._ledger.owned():
            try:
                state = None if seat.saved == held else seat.state(held[0])
                if isinstance(state, Saved):
                    self._ledger.add_checkpoint(state.trial, state.epoch, state.checkpoint)
                elif state is not None:
                    self._listener(
                        Noted(f"trial {held[0]}: its state could not be kept ({state}); it is trained again")
                    )
                    seat.replace()
            except LeaseLost as lost:
                self._lose(lost)
            self._let_go(held[0])
        if seat.grown:
            seat.replace()

    def _let_go(self, trial: int) -> None:
        if trial in self._ledger.owned():
            self._ledger.let_go(trial)
            self._shared.forget(trial)

    def _hear(self, seat: Seat) -> None:
        try:
            answer: Answer = seat.worker.receive()
        except Died as death:
            self._bury(seat, death)
            return
        self._news = True
        if isinstance(answer, Ready):
            self._seat_again(seat, answer)
        elif isinstance(answer, Remark):
            self._listener(Noted(answer.text))
        elif isinstance(answer, EpochDone):
            self._write_down(seat, answer)
        elif isinstance(answer, Failed):
            self._meet_failure(seat, answer)
        else:
            raise AssertionError(f"a worker said {type(answer).__name__}, which nobody asked for")

    def _write_down(self, seat: Seat, done: EpochDone) -> None:
        step, figures = seat.step, done.figures
        assert step is not None and seat.ready is not None, "an epoch belongs to a step"
        seat.bytes, seat.first_bytes = done.worker_bytes, seat.first_bytes or done.worker_bytes
        if seat.has_company(self._seats):
            figures = dataclasses.replace(figures, side_by_side=True)
        started = time.perf_counter()
        try:
            self._ledger.add_epoch(step.trial, seat.ready.machine, figures, done.compile_seconds, done.checkpoint)
        except LeaseLost as lost:
            self._lose(lost)
            return
        if done.checkpoint is not None:
            self._save_seconds = time.perf_counter() - started
            seat.saved = (step.trial, figures.epoch)
        if seat.ready.machine.fingerprint == self._capacity.machine:
            self._capacity.trained(step.batch_size, figures.train_seconds, side_by_side=figures.side_by_side)
        self._progress[step.trial].trained(figures)
        self._listener(Trained(step.trial, figures, done.compile_seconds))
        if figures.lost:
            seat.step = None
            if figures.diverged:
                self._rule_out(step, "diverged", self._ledger.diverge, note="diverged")
            else:
                why = "the metric is not a number, though the loss is"
                self._rule_out(step, "untrainable", lambda trial: self._ledger.refuse(trial, why), note=why)
            return
        over = self._ending.over(figures)
        if figures.epoch == step.until_epoch or over:
            seat.step = None
            seat.held = (step.trial, figures.epoch)
        if figures.epoch > step.from_epoch or over:
            told = (step.trial, figures.epoch, figures.validation_accuracy, figures.train_seconds)
            self._ledger.transactions.again(lambda: self._search.tell(*told))  # A pruner reads the database.
        if over:
            end = self._ending.of(step.trial, figures)
            self._progress[step.trial].seconds_to_target = end.seconds_to_target
            self._end(step.trial, end.state, end.write, end.note)
        self._give_up(self._search.given_up())

    def _meet_failure(self, seat: Seat, failed: Failed) -> None:
        if failed.kind in ("memory", "model") and seat.step is not None and seat.ready is not None:
            self._run_out(seat, seat.step, by_size=failed.kind == "memory")
            return
        if failed.kind == "untrainable" and seat.step is not None:
            step, seat.step, why = seat.step, None, failed.message
            self._rule_out(step, "untrainable", lambda trial: self._ledger.refuse(trial, why), note=why)
            return
        raise as_error(failed)

    def _run_out(self, seat: Seat, step: Step, *, by_size: bool = True) -> None:
        """A worker ran out of memory: that size and all larger ones are out, unless it may be for something else."""
        assert seat.ready is not None
        by_size = by_size and not step.extra
        if by_size and self._capacity.run_out(step.batch_size, seat.ready.machine.fingerprint):
            self._ledger.add_memory(self._capacity.rows)
        seat.replace()
        self._exceed_memory(step, by_size=by_size)

    def _exceed_memory(self, step: Step, *, by_size: bool = True) -> None:
        over = self._capacity.bytes_over(step.batch_size)
        reason: Infeasibility = "memory" if by_size else "untrainable"
        self._rule_out(step, reason, lambda trial: self._ledger.exceed_memory(trial, over), note="out of memory")

    def _rule_out(self, step: Step, reason: Infeasibility, write: Callable[[int], None], *, note: str) -> None:
        self._search.infeasible(step.trial, reason)
        self._end(step.trial, "pruned", write, note=note)

    def _seat_again(self, seat: Seat, ready: Ready) -> None:
        """A worker is ready, the first of its seat or a later one, on the machine that there is now."""
        if change := seat.sit(ready):
            self._listener(Noted(change))
        self._ledger.add_machine(ready.machine, ready.engine, deterministic=seat.worker.setup.deterministic)
        self._capacity.joined(ready.machine.fingerprint, ready.memory)

    def _bury(self, seat: Seat, death: Died) -> None:
        """A worker died: replace it, and go on with its trial, unless the trial seems to be the cause."""
        step, held, why = seat.step, seat.held, death.how
        if step is None or not seat.awake:
            # No trial is to blame.
            seat.deaths += 1
            if seat.deaths >= DEATHS_ALLOWED:
                raise errors.WorkerDied(str(death))
            seat.replace()
            self._listener(Noted(f"{why} while it trained nothing; another one takes its place"))
            if step is not None:
                self._train(seat, step)
            elif held is not None:
                self._let_go(held[0])
            return
        if death.out_of_memory or (death.killed and self._capacity.nearly_all(step.batch_size)):
            self._run_out(seat, step)
            return
        seat.replace()
        try:
            deaths = self._ledger.count_death(step.trial)
        except LeaseLost as lost:
            self._lose(lost)
            return
        if deaths < DEATHS_ALLOWED:
            self._listener(Noted(f"trial {step.trial}: {why}; it is taken up again"))
            self._train(seat, step)
            return
        self._search.infeasible(step.trial, "failed")
        self._end(step.trial, "fail", lambda trial: self._ledger.fail(trial, str(death)), note=why)

    def _give_up(self, trials: Sequence[int]) -> None:
        for trial in trials:
            if trial in self._ledger.owned() or self._ledger.begin(trial):
                self._end(trial, "pruned", self._ledger.prune)

    def _lose(self, lost: LeaseLost) -> None:
        """A trial is another process's now, which goes on from what was kept; what a worker here does is in vain."""
        trial = lost.trial
        self._listener(Noted(f"{lost}; its late results are refused"))
        self._shared.forget(trial)
        if isinstance(lost, Deleted):
            self._search.infeasible(trial, "failed")
            self._shared.ended(trial)
        for seat in self._seats:
            if seat.step is not None and seat.step.trial == trial:
                seat.replace()
            elif seat.held is not None and seat.held[0] == trial:
                seat.held = None

    def _end(self, trial: int, state: str, write: Callable[[int], None], note: str = "") -> None:
        """Write the end of a trial, and say so."""
        try:
            write(trial)
        except LeaseLost as lost:
            self._lose(lost)
            return
        self._listener(self._shared.ended(trial).ended(trial, state, note))
        self._keep_time()

    def _keep_time(self) -> None:
        self._ledger.set_elapsed(time.monotonic() - self._started)

    def _keep_leases(self) -> None:
        if time.monotonic() - self._renewed > self._ledger.records.lease_seconds / 3:
            for trial in self._ledger.renew():
                self._lose(LeaseLost(trial))
            self._keep_time()
            self._renewed = time.monotonic()
