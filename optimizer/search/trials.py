"""What the scheduler knows of a trial, and what it makes of all of them: points for the surrogate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from optimizer.search.cube import Cube
from optimizer.search.curves import Curves
from optimizer.search.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from optimizer.search.steps import Step

TrialState = Literal["running", "paused", "complete", "stopped", "infeasible"]

SMOOTHED_EPOCHS = 3
"""A value before the last epoch is the mean of so many; the final value stands as it was observed."""


@dataclass
class Trial:
    """One configuration and what came of it; also how stored trials are fed to a scheduler.

    Attributes:
        trial: its number.
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        extra: values of the extra dimensions.
        curve: epoch, counted from 1 -> (value, seconds), for every epoch trained.
        state: `stopped` was given up and is not continued; `infeasible` never will be.
        until_epoch: where the step under way ends; 0 where none is.
        reason: why it is infeasible: "memory", "diverged", "untrainable" or "failed".
    """

    trial: int
    batch_size: int
    learning_rate: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    curve: dict[int, tuple[float, float]] = field(default_factory=dict)
    state: TrialState = "paused"
    until_epoch: int = 0
    reason: str = ""

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return max(self.curve, default=0)

    @property
    def params(self) -> dict[str, Any]:
        """The configuration by dimension."""
        return {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate, **self.extra}

    @property
    def seconds_per_epoch(self) -> float:
        """Mean over the epochs trained; 0 where none was timed."""
        timed = [seconds for _, seconds in self.curve.values() if math.isfinite(seconds) and seconds > 0]
        return sum(timed) / len(timed) if timed else 0.0

    def value_at(self, epoch: int, max_epochs: int) -> float:
        """The value at an epoch; before the last one, averaged over the epochs just before it."""
        if epoch >= max_epochs:
            return self.curve[epoch][0]
        values = [self.curve[e][0] for e in range(max(1, epoch - SMOOTHED_EPOCHS + 1), epoch + 1) if e in self.curve]
        return sum(values) / len(values)


def step_of(trial: Trial, *, gain: float | None, seconds: float | None, why: str) -> Step:
    """The step of a trial that now goes on up to its `until_epoch`; what it is expected to gain and to take."""
    return Step(
        trial=trial.trial,
        batch_size=trial.batch_size,
        learning_rate=trial.learning_rate,
        until_epoch=trial.until_epoch,
        from_epoch=trial.epochs,
        extra=dict(trial.extra),
        expected_gain=gain,
        expected_seconds=seconds,
        reason=why,
    )


def rungs(max_epochs: int) -> list[int]:
    """Epochs at which a trial is paused and thought over: a quarter, a half, all."""
    return sorted({math.ceil(max_epochs / 4), math.ceil(max_epochs / 2), max_epochs})


def marks(max_epochs: int) -> set[int]:
    """Epochs at which curves are looked at: an eighth, and the rungs."""
    return {math.ceil(max_epochs / 8), *rungs(max_epochs)}


def observed(trials: Sequence[Trial], cube: Cube, *, max_epochs: int, sign: float) -> Curves | None:
    """Points for the surrogate: each curve at an eighth, at the rungs, and at its last epoch.

    Args:
        trials: in any state.
        cube: coordinates of configurations.
        max_epochs: epochs of a whole trial.
        sign: 1 where larger values are better, -1 where smaller ones are.

    Returns:
        Row i is trial i. One that diverged or cannot be trained is at most the worst value seen anywhere, after all
        epochs. None where no finite value was seen.
    """
    index, fidelity, value = [], [], []
    for row, trial in enumerate(trials):
        if trial.state == "infeasible":
            continue
        for epoch in sorted(marks(max_epochs) | {trial.epochs}):
            if epoch in trial.curve:
                index.append(row)
                fidelity.append(epoch / max_epochs)
                value.append(sign * trial.value_at(epoch, max_epochs))
    if not value:
        return None
    exact, worst = len(value), min(value)
    for row, trial in enumerate(trials):
        if trial.state == "infeasible" and trial.reason in ("diverged", "untrainable"):
            index.append(row)
            fidelity.append(1.0)
            value.append(worst)
    pending = [(row, trial.until_epoch / max_epochs) for row, trial in enumerate(trials) if trial.state == "running"]
    return Curves(
        x=cube.encode(trial.params for trial in trials),
        trial=np.array(index, dtype=np.int64),
        fidelity=np.array(fidelity),
        value=np.array(value),
        censored=np.arange(len(value)) >= exact,
        pending_trial=np.array([row for row, _ in pending], dtype=np.int64),
        pending_fidelity=np.array([share for _, share in pending]),
    )


def rotation(space: SearchSpace, cube: Cube) -> tuple[int, int, float] | None:
    """The surrogate's `rotation`: how the rate may turn with the batch size; None where one of them is fixed."""
    low, high = space.learning_rate
    if low == high or space.smallest == space.largest:
        return None
    ratio = math.log(space.largest / space.smallest) / math.log(high / low)
    return cube.column(BATCH_SIZE), cube.column(LEARNING_RATE), ratio
