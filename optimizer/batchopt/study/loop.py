"""The loop of a study: a session, and the workers that do its steps, until there are none left or time is up.

It hands a step to every free worker, hears what comes back, and takes care of workers that die or grow.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import suppress

from batchopt import errors
from batchopt.events import Listener, Noted, Stepped
from batchopt.search.steps import Step
from batchopt.signals import Interruption
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.session import Session
from batchopt.study.shared import TURN_PATIENCE_S
from batchopt.training.messages import Answer, EpochDone, Failed, Ready, Remark, Saved
from batchopt.words import counted
from batchopt.workers.probing import Room
from batchopt.workers.process import Died
from batchopt.workers.slot import DEATHS_ALLOWED, Slot, as_error, with_answers

TICK_SECONDS = 0.2
"""How often the loop looks up from waiting, for signals and leases."""


class Loop:
    """Runs a session with workers.

    Args:
        session: decides, and keeps what comes back.
        slots: the workers; the first is ready.
        until: seconds of the study (`Session.elapsed`) at which it ends; None for no end.
        interruption, listener: looked at between any two writes; told what happens.
    """

    def __init__(
        self,
        session: Session,
        slots: Sequence[Slot],
        *,
        until: float | None,
        interruption: Interruption,
        listener: Listener,
    ) -> None:
        self._session = session
        session.lost = self._drop
        self._slots = list(slots)
        self._until = until
        self._interruption = interruption
        self._listener = listener
        self._room = Room(listener)
        self._save_seconds = 0.0
        self._news, self._waiting = True, False

    def run(self) -> None:
        """Go on until the search has no more steps, or time is up.

        Raises:
            Interrupted: by a signal; unfinished trials stay RUNNING and nobody's.
            TaskFailed: the user's own code raised.
            BatchoptError: a worker met something the user can mend, or the database refuses.
        """
        with self._session:
            while not self._late() and self._hand_out():
                self._interruption.check()
                for slot in with_answers(self._slots, TICK_SECONDS):
                    # What was lost, the session has told.
                    with suppress(LeaseLost):
                        self._hear(slot)
                self._room.waited_for([slot.worker for slot in self._slots])
                self._session.renew()
            self._session.end("the time budget is used up" if self._late() else "")

    def _late(self) -> bool:
        return self._until is not None and self._session.elapsed() >= self._until

    def _hand_out(self) -> bool:
        """Give every free worker a step; False when there is none to give and none under way, here or elsewhere."""
        session = self._session
        if not any(slot.state == "idle" for slot in self._slots):
            return True
        while any(slot.state == "idle" for slot in self._slots) and (self._news or session.may_look()):
            try:
                step = session.ask(patience=TURN_PATIENCE_S)
            except TurnLost:
                return True
            if step is None:
                self._news = False
                # What the free workers hold may be taken up elsewhere.
                for slot in self._slots:
                    if slot.state == "idle":
                        self._put_aside(slot)
                break
            self._give(step)
        if any(slot.step is not None or (slot.ready is None and slot.will_answer) for slot in self._slots):
            return True
        if session.others and not self._waiting:
            self._listener(Noted(f"idle: waiting for {counted(session.others, 'trial')} running elsewhere"))
        self._waiting = bool(session.others)
        return self._waiting

    def _give(self, step: Step) -> None:
        """Hand a step to the worker that holds its trial, or else to a free one."""
        free, held = [slot for slot in self._slots if slot.state == "idle"], (step.trial, step.from_epoch)
        slot = next((slot for slot in free if slot.held == held), free[0])
        largest = self._session.capacity.max_batch_size
        if largest is not None and step.batch_size > largest:
            # Queued, or begun on a larger machine.
            self._session.out_of_memory(step.trial)
            return
        self._listener(Stepped(step))
        if slot.held != held:
            self._put_aside(slot)
        self._train(slot, step)

    def _train(self, slot: Slot, step: Step) -> None:
        """Have a step trained by its slot's worker; where that is not ready yet, it answers when it is."""
        if slot.state == "starting" and not slot.will_answer:
            # Whoever is free takes it up.
            self._session.let_go(step.trial)
            return
        from_epoch, checkpoint = step.from_epoch, None
        if slot.held != (step.trial, from_epoch):
            from_epoch, checkpoint = self._session.state(step)
        slot.train(
            step,
            from_epoch,
            checkpoint,
            study_seed=self._session.stamp.seed,
            last_epoch=self._session.ending.last_epoch,
            save_seconds=self._save_seconds,
            until=self._session.ending.target,
            micro_batch_size=self._session.capacity.micro_batch_size(step.batch_size),
        )

    def _put_aside(self, slot: Slot) -> None:
        """Keep the state of the unfinished trial that a worker holds, before it trains another; it is anyone's then."""
        held, slot.held = slot.held, None
        if held is not None and self._session.holds(held[0]):
            state = None if slot.saved == held else slot.saved_state(held[0])
            if isinstance(state, Saved):
                with suppress(LeaseLost):
                    self._session.keep(state.trial, state.epoch, state.checkpoint)
            elif state is not None:
                self._listener(Noted(f"trial {held[0]}: its state could not be kept ({state}); it is trained again"))
                slot.replace()
            self._session.let_go(held[0])
        if slot.outgrown:
            slot.replace()

    def _hear(self, slot: Slot) -> None:
        try:
            answer: Answer = slot.worker.receive()
        except Died as death:
            self._replace_dead(slot, death)
            return
        self._news = True
        if isinstance(answer, Ready):
            self._begin_again(slot, answer)
        elif isinstance(answer, Remark):
            self._listener(Noted(answer.text))
        elif isinstance(answer, EpochDone):
            self._write_down(slot, answer)
        elif isinstance(answer, Failed):
            self._meet_failure(slot, answer)
        else:
            raise AssertionError(f"a worker said {type(answer).__name__}, which nobody asked for")

    def _write_down(self, slot: Slot, done: EpochDone) -> None:
        step, figures = slot.step, done.figures
        assert step is not None and slot.ready is not None, "an epoch belongs to a step"
        self._session.stamp.metric.check(figures.value)
        slot.bytes, slot.first_bytes = done.worker_bytes, slot.first_bytes or done.worker_bytes
        if slot.has_company(self._slots):
            figures = dataclasses.replace(figures, side_by_side=True)
        started = time.perf_counter()
        verdict = self._session.tell(
            step.trial,
            slot.ready.machine,
            figures,
            compile_seconds=done.compile_seconds,
            checkpoint=done.checkpoint,
            stopped=done.stopped,
        )
        if done.checkpoint is not None:
            self._save_seconds = time.perf_counter() - started
            slot.saved = (step.trial, figures.epoch)
        if verdict != "continue":
            slot.step = None
            slot.held = (step.trial, figures.epoch) if verdict == "pause" else None

    def _meet_failure(self, slot: Slot, failed: Failed) -> None:
        if failed.kind in ("memory", "model") and slot.step is not None and slot.ready is not None:
            self._run_out(slot, slot.step, by_size=failed.kind == "memory")
            return
        if failed.kind == "untrainable" and slot.step is not None:
            step, slot.step = slot.step, None
            self._session.refuse(step.trial, failed.message)
            return
        raise as_error(failed)

    def _run_out(self, slot: Slot, step: Step, *, by_size: bool = True) -> None:
        """A worker ran out of memory, and is of no more use."""
        assert slot.ready is not None
        fingerprint = slot.ready.machine.fingerprint
        slot.replace()
        self._session.out_of_memory(step.trial, fingerprint, by_size=by_size)

    def _begin_again(self, slot: Slot, ready: Ready) -> None:
        """A worker is ready, the first of its slot or a later one, on the machine that there is now."""
        if change := slot.worker_ready(ready):
            self._listener(Noted(change))
        self._session.join(ready.machine, ready.engine, ready.memory, deterministic=slot.worker.setup.deterministic)

    def _replace_dead(self, slot: Slot, death: Died) -> None:
        """A worker died: start another, and go on with its trial, unless the trial seems to be the cause."""
        step, held, why = slot.step, slot.held, death.how
        if step is None or slot.state == "starting":
            # No trial is to blame.
            slot.deaths += 1
            if slot.deaths >= DEATHS_ALLOWED:
                raise errors.WorkerDied(str(death))
            slot.replace()
            self._listener(Noted(f"{why} while it was idle; restarting it"))
            if step is not None:
                self._train(slot, step)
            elif held is not None:
                self._session.let_go(held[0])
            return
        if death.out_of_memory or (death.killed and self._session.capacity.nearly_all(step.batch_size)):
            self._run_out(slot, step)
            return
        slot.replace()
        if self._session.count_death(step.trial) < DEATHS_ALLOWED:
            self._listener(Noted(f"trial {step.trial}: {why}; it is resumed"))
            self._train(slot, step)
            return
        self._session.fail(step.trial, str(death), note=why)

    def _drop(self, trial: int) -> None:
        """What a worker does for a trial is in vain."""
        for slot in self._slots:
            if slot.step is not None and slot.step.trial == trial:
                slot.replace()
            elif slot.held is not None and slot.held[0] == trial:
                slot.held = None
