"""What the study's process and a worker say to each other: frozen records, no TensorFlow.

The study sends `Setup` once, then `Train` and `Save`, one at a time. The worker answers `Setup` with `Ready`, `Train`
with one `EpochDone` per epoch, `Save` with `Saved`; or with `Failed` at any time, after which it is of no more use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from optimizer.training.machine import Machine
from optimizer.training.task import Task

EngineName = Literal["fused-xla", "fused", "fit"]
"""How an epoch is run: one program compiled by XLA, one program without it, Keras' own loop."""

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; times are on the training clock, compilation off it."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    train_seconds: float
    evaluation_seconds: float
    steps: int
    examples_per_second: float

    @property
    def diverged(self) -> bool:
        """Whether a loss, or the metric that the study watches, is NaN or infinite."""
        watched = (self.train_loss, self.validation_loss, self.validation_accuracy)
        return not all(math.isfinite(value) for value in watched)


@dataclass(frozen=True)
class Setup:
    """What to train, on what.

    Attributes:
        task: the study's task.
        data_path: handed to the task's `load_data`.
        train_examples: train on so many; all where None.
        device: as `--device`.
        threads: processor threads for this worker; all of its cores where None.
        engine: pinned engine; None to time and choose.
        known_engines: what was chosen before on machines of these fingerprints; not timed again.
        learning_rate, extra: a configuration of the space, to build the model once and look at it.
    """

    task: Task
    data_path: str | None
    train_examples: int | None
    device: str
    threads: int | None
    engine: EngineName | None
    learning_rate: float
    extra: dict[str, Any] = field(default_factory=dict)
    known_engines: dict[str, EngineName] = field(default_factory=dict)


@dataclass(frozen=True)
class Train:
    """Train one trial's epochs `from_epoch + 1` to `until_epoch`.

    Attributes:
        checkpoint: the trial's state after `from_epoch` epochs; None where the worker holds it, or from_epoch is 0.
    """

    trial: int
    study_seed: int
    batch_size: int
    learning_rate: float
    extra: dict[str, Any]
    from_epoch: int
    until_epoch: int
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Save:
    """Hand over the state of the trial trained last."""

    trial: int


@dataclass(frozen=True)
class EngineTiming:
    """What one engine took in the probe, or why it cannot be used."""

    engine: EngineName
    step_time_s: float
    compile_seconds: float
    refusal: str = ""


@dataclass(frozen=True)
class ProgramStamp:
    """What a study's trials have in common, beside the space: another program is another study."""

    model: str
    data: str
    train_examples: int
    validation_examples: int
    metric: str


@dataclass(frozen=True)
class Ready:
    """The worker can train.

    Attributes:
        program: fingerprints of model and data; counts of examples.
        parameters: trainable parameters of the model.
        engine: the engine that trials will use.
        timings: of the engines, the chosen one first; empty where the engine was pinned.
    """

    machine: Machine
    program: ProgramStamp
    parameters: int
    engine: EngineName
    timings: tuple[EngineTiming, ...]


@dataclass(frozen=True)
class EpochDone:
    """One epoch of a trial.

    Attributes:
        compile_seconds: what had to be compiled before it, off the training clock.
        worker_bytes: the worker's resident memory.
    """

    trial: int
    figures: Epoch
    compile_seconds: float
    worker_bytes: int


@dataclass(frozen=True)
class Saved:
    """A trial's state after `epoch` epochs, as `checkpoint.pack` wrote it."""

    trial: int
    epoch: int
    checkpoint: bytes


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on.

    Attributes:
        kind: `input`, something the user can mend, said in one line; `task`, the user's own code raised; `memory`, the
            device's or the host's memory did not suffice.
        error: the class of the error.
        message: the line, or the traceback.
    """

    kind: Literal["input", "task", "memory"]
    error: str
    message: str


Request = Setup | Train | Save
Answer = Ready | EpochDone | Saved | Failed
