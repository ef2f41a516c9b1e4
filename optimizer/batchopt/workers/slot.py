"""A worker's place in a study, and what a trial has come to so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Literal

from batchopt import errors
from batchopt.search.steps import Step
from batchopt.text import first_line
from batchopt.training.messages import Failed, Ready, Save, Saved, Train
from batchopt.workers.client import Worker
from batchopt.workers.process import Died

DEATHS_ALLOWED = 3
"""A trial whose worker dies this often without an epoch in between fails: it, and not chance, kills them. A study whose
workers die this often in a row before they are ready ends."""

WORKER_GROWTH_BYTES = 1 << 30
"""A worker that has grown by this much is replaced between two trials: TensorFlow gives memory back only at exit."""


State = Literal["starting", "idle", "training"]


@dataclass
class Slot:
    """A worker's place.

    Attributes:
        worker: who has it.
        ready: what it said of itself; of the one before it until it does.
        step: what it does.
        held: the trial that it holds on its device while it does nothing, and after how many epochs.
        saved: the trial, and after how many epochs, of its last checkpoint.
        first_bytes, bytes: its memory after its first epoch and now.
        deaths: how many workers in a row died here before they were ready, or with nothing to do.
        awake: whether the worker has said that it is ready.
    """

    worker: Worker
    ready: Ready | None = None
    step: Step | None = None
    held: tuple[int, int] | None = None
    saved: tuple[int, int] | None = None
    first_bytes: int = 0
    bytes: int = 0
    deaths: int = 0
    awake: bool = False

    def __post_init__(self) -> None:
        self.awake = self.ready is not None

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *error: object) -> None:
        """End whichever worker has it now."""
        self.worker.kill()

    @property
    def state(self) -> State:
        """Whether its worker is on its way, has nothing to do, or does a step."""
        return "starting" if not self.awake else "idle" if self.step is None else "training"

    @property
    def will_answer(self) -> bool:
        """Whether a worker that was called will come, within seconds: a cluster may have no room for it any more."""
        return self.worker.setup.cluster is None

    @property
    def outgrown(self) -> bool:
        """Whether it has taken so much memory that another worker should have its place."""
        return self.bytes - self.first_bytes > WORKER_GROWTH_BYTES

    def worker_ready(self, ready: Ready) -> str:
        """The worker is ready, the first of its slot or a later one, on the machine that there is now.

        Returns:
            What has changed since the last one, in one line; empty where nothing has.

        Raises:
            DeviceError: the GPU is gone.
        """
        was = self.ready.machine if self.ready is not None else None
        self.ready, self.awake, self.deaths = ready, True, 0
        if was is None or was.fingerprint == ready.machine.fingerprint:
            return ""
        if was.kind == "gpu" != ready.machine.kind:
            raise errors.DeviceError(
                f"the GPU {was.device} is gone; everything finished is kept. Bring it back, or use --device cpu."
            )
        return f"the machine has changed: {was.cores} cores before, {ready.machine.cores} now"

    def train(self, step: Step, from_epoch: int, checkpoint: Any, **how: Any) -> None:
        """Have the worker do a step; `how` is what of `Train` belongs to the study."""
        self.step, self.held = step, None
        self.worker.send(
            Train(
                trial=step.trial,
                batch_size=step.batch_size,
                learning_rate=step.learning_rate,
                extra=dict(step.extra),
                from_epoch=from_epoch,
                until_epoch=step.until_epoch,
                checkpoint=checkpoint,
                **how,
            )
        )

    def saved_state(self, trial: int) -> Saved | str:
        """The state of the trial that the worker holds; or why it cannot be had: the worker is of no use then."""
        self.worker.send(Save(trial))
        try:
            while not isinstance(answer := self.worker.receive(), Saved | Failed):
                pass
        except Died as death:
            return death.how
        return answer if isinstance(answer, Saved) else answer.message.strip().rpartition("\n")[2] or answer.kind

    def replace(self) -> None:
        """Put a new worker in the place of this one; it does not choose its engine again."""
        self.worker.kill()
        engine = self.worker.setup.engine if self.ready is None else self.ready.engine
        self.worker = Worker(dataclasses.replace(self.worker.setup, engine=engine))
        self.step = self.held = self.saved = None
        self.awake = False
        self.first_bytes = self.bytes = 0

    def has_company(self, slots: Sequence[Slot]) -> bool:
        """Whether another worker uses the same device; the cores of one processor share its memory and clock."""
        mine, on_gpu = self.worker, self.ready is not None and self.ready.machine.kind == "gpu"
        if on_gpu and mine.setup.cluster is not None:
            # A cluster gives each its own.
            return False
        others = [other.worker for other in slots if other is not self and other.worker.node == mine.node]
        return any(not on_gpu or other.setup.device == mine.setup.device for other in others)


def with_answers(slots: Sequence[Slot], seconds: float) -> list[Slot]:
    """Those whose workers have something to say, waited for so many seconds."""
    by_connection = {slot.worker.connection: slot for slot in slots}
    return [by_connection[connection] for connection in wait(list(by_connection), seconds)]  # type: ignore[index]


def as_error(failed: Failed) -> errors.BatchoptError:
    """What a worker said, as the exception it was."""
    if failed.kind == "input":
        kind = getattr(errors, failed.error, errors.BatchoptError)
        return kind(failed.message)
    if failed.kind == "memory":
        return errors.DeviceError(f"not enough memory to set up the study: {first_line(failed.message)}")
    if failed.kind == "training":
        return errors.TrainingFailed(
            f"{failed.error} was raised outside of the study's own code: by Keras or TensorFlow with this model and "
            f"data, or by a fault of batchopt. Everything finished is kept, the trial is back in the queue.\n"
            f"{failed.message}"
        )
    return errors.TaskFailed(failed.message)
