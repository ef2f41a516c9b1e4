"""One worker that trains one thing that no search has asked for: a run that confirms, a model that is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from batchopt.errors import DeviceError, WorkerDied
from batchopt.events import Listener, Noted
from batchopt.signals import Interruption
from batchopt.study.loop import TICK_SECONDS
from batchopt.text import first_line
from batchopt.training.messages import Answer, Failed, Ready, Remark, Request
from batchopt.workers.process import Died
from batchopt.workers.slot import DEATHS_ALLOWED, Slot, as_error

T = TypeVar("T")


class SingleRun:
    """Asks a worker and hears it.

    Args:
        slot: with a worker that is ready.
        what: is trained, for people.
        then: what happens where its worker dies, for people.
        too_large: given why memory ran out, what to say of it.
        interruption: looked at while the worker is waited for.
        listener: told what happens.
        tick: called as often.
    """

    def __init__(
        self,
        slot: Slot,
        what: str,
        *,
        then: str,
        too_large: Callable[[str], DeviceError],
        interruption: Interruption,
        listener: Listener,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.slot = slot
        self._what, self._then = what, then
        self._too_large = too_large
        self._interruption, self._listener, self._tick = interruption, listener, tick

    def tried(self, attempt: Callable[[], T]) -> T:
        """What an attempt comes to, made anew where its worker dies.

        Raises:
            DeviceError: memory ran out.
            WorkerDied: too often.
        """
        for number in range(1, DEATHS_ALLOWED + 1):
            try:
                return attempt()
            except Died as death:
                if death.out_of_memory:
                    raise self._too_large(first_line(death)) from None
                if number == DEATHS_ALLOWED:
                    raise WorkerDied(str(death)) from None
                self._listener(Noted(f"{self._what}: {first_line(death)}; {self._then}"))
                self.slot.replace()
        raise AssertionError

    def ask(self, request: Request) -> None:
        """Send the worker a request."""
        self.slot.worker.send(request)

    def heard(self) -> Answer:
        """The worker's next answer of note.

        Raises:
            Died: the worker did.
            BatchoptError: it failed, for a reason that the user can mend.
        """
        while True:
            while not self.slot.worker.connection.poll(TICK_SECONDS):
                self._look_up()
            self._look_up()
            answer = self.slot.worker.receive()
            if isinstance(answer, Remark):
                self._listener(Noted(answer.text))
            elif isinstance(answer, Ready):
                # Of a worker that took another one's place.
                self._listener(Noted(self.slot.worker_ready(answer) or "another worker has taken its place"))
            elif isinstance(answer, Failed):
                raise self._too_large(first_line(answer.message)) if answer.kind == "memory" else as_error(answer)
            else:
                return answer

    def _look_up(self) -> None:
        self._interruption.check()
        self._tick()
