"""What is measured of training, and of the machine it runs on: frozen records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

EngineName = Literal["fused-xla", "fused", "fit"]
"""How an epoch is run: one program compiled by XLA, one program without it, Keras' own loop."""

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


LARGEST_VALUE = 1e100
"""Of a metric or a loss. No model of 32 bits comes near it, and squares of what is beyond are no numbers."""


def is_number(value: float) -> bool:
    """Whether a value can be counted with: it is finite, and so is what is made of it."""
    return abs(value) <= LARGEST_VALUE


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; times are on the training clock, compilation off it.

    Attributes:
        train_loss, validation_loss: None where the model's own steps return none that is known as such.
        peak_bytes: the most device memory that was in use; None where the device does not tell.
        joules: energy that the device drew while it trained, as `train_seconds` count; None where it does not tell.
        side_by_side: whether another worker trained on the same processor meanwhile, so that the times are not its own.
        noise_small, noise_big: batch sizes whose gradients were looked at after it, on its weights; None after most.
        sq_norm_small, sq_norm_big: squared gradient norms, averaged over batches of these sizes.
        noise_seconds: what that took, off the training clock.
        raw_loss, raw_value: of validation with the weights as they are trained on, where the optimizer averages them;
            `validation_loss` and `value` are those of the averages then, as `fit` leaves them behind. Else None.
    """

    epoch: int
    train_loss: float | None
    train_value: float
    validation_loss: float | None
    value: float
    train_seconds: float
    evaluation_seconds: float
    steps: int
    examples_per_second: float
    peak_bytes: int | None = None
    joules: float | None = None
    side_by_side: bool = False
    noise_small: int | None = None
    noise_big: int | None = None
    sq_norm_small: float | None = None
    sq_norm_big: float | None = None
    noise_seconds: float | None = None
    raw_loss: float | None = None
    raw_value: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether a loss is NaN or infinite."""
        return any(loss is not None and not math.isfinite(loss) for loss in (self.train_loss, self.validation_loss))

    @property
    def valueless(self) -> bool:
        """Whether its trial can have no value: it diverged, or the metric is no number though every loss is one."""
        return self.diverged or not is_number(self.value)


@dataclass(frozen=True)
class EngineTiming:
    """What one engine took in the probe, or why it cannot be used."""

    engine: EngineName
    step_time_s: float
    compile_seconds: float
    refusal: str = ""


@dataclass(frozen=True)
class DeviceMemory:
    """What a device's memory is worth to training; bytes.

    Attributes:
        capacity_bytes: what this worker may use in all.
        resident_bytes: what parameters, optimizer slots and data held on the device take, whatever the batch size.
        beginning_bytes: what the beginning of a trial needs for a while, whatever the batch size.
        evaluation_bytes: what evaluation took when it was tried; it makes do with less, and is never what does not fit.
    """

    capacity_bytes: int
    resident_bytes: int
    beginning_bytes: int = 0
    evaluation_bytes: int = 0


@dataclass(frozen=True)
class StepTime:
    """What a training step of one batch size takes.

    Attributes:
        step_time_s: seconds per step, the median of `count` rounds.
        spread_s: half the range of the rounds' middle half.
        epoch_overhead_s: what an epoch takes beside its whole steps and its last partial one.
    """

    batch_size: int
    step_time_s: float
    spread_s: float
    epoch_overhead_s: float
    count: int


@dataclass(frozen=True)
class MemoryRow:
    """What is known of one batch size's memory.

    Attributes:
        step_bytes: what a training step needs beside what is resident; None where it failed before it could be seen.
        fits: whether it was really trained and evaluated; None where it was only foreseen.
    """

    batch_size: int
    step_bytes: int | None
    fits: bool | None
