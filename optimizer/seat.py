"""A worker's place in a study, and what a trial has come to so far."""

from __future__ import annotations

from dataclasses import dataclass

from optimizer import errors
from optimizer.search.steps import Step
from optimizer.training.client import Worker
from optimizer.training.messages import Failed, Ready


@dataclass
class Progress:
    """How far an unfinished trial is."""

    batch_size: int
    learning_rate: float
    epochs: int = 0
    accuracy: float | None = None
    train_seconds: float = 0.0


@dataclass
class Seat:
    """A worker's place: who sits there, what it does, and which trial it holds on its device."""

    worker: Worker
    ready: Ready | None = None
    step: Step | None = None
    held: tuple[int, int] | None = None
    first_bytes: int = 0
    bytes: int = 0

    @property
    def free(self) -> bool:
        return self.ready is not None and self.step is None


def as_error(failed: Failed) -> errors.BatchoptError:
    """What a worker said, as the exception it was."""
    if failed.kind == "input":
        kind = getattr(errors, failed.error, errors.BatchoptError)
        return kind(failed.message)
    if failed.kind == "memory":
        return errors.DeviceError(f"not enough memory to set up the study: {failed.message.splitlines()[0]}")
    return errors.TaskFailed(failed.message)
