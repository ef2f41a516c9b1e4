"""The interface between what decides and what trains: a search hands out steps, and is told what came of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from batchopt.question.space import BATCH_SIZE, LEARNING_RATE

Infeasibility = Literal["memory", "diverged", "untrainable", "failed"]


@dataclass(frozen=True)
class Step:
    """Train one trial further.

    Attributes:
        trial: the trial's number.
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        until_epoch: train up to and including this epoch, counted from 1.
        from_epoch: epochs that the trial has been trained already.
        extra: values of the extra dimensions.
        expected_gain: what the step is expected to add to the best value, where the search estimates it.
        expected_seconds: what it is expected to cost, where the search knows.
        reason: why this step, in one phrase for the screen.
    """

    trial: int
    batch_size: int
    learning_rate: float
    until_epoch: int
    from_epoch: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    expected_gain: float | None = None
    expected_seconds: float | None = None
    reason: str = ""


class Search(Protocol):
    """What drives a study; knows nothing of training."""

    stop_reason: str
    """Why `next` returned None, in one line; empty where it only waits for steps that are under way."""

    def next(self) -> Step | None:
        """The next step for a free worker; None where there is none now."""

    def tell(self, trial: int, epoch: int, value: float, seconds: float, *, over: bool = False) -> None:
        """One epoch of a trial was trained: its value, its training seconds, whether training has ended by itself."""

    def learn(self, trial: Trial) -> None:
        """What the study holds of a trial that this process does not train now.

        A `paused` one is nobody's and may be handed out; a `running` one is another process's, even where it was
        handed out here before. One that would have been given up is told by `given_up`.
        """

    def limit(self, batch_size: int | None) -> None:
        """The largest batch size that whoever asks next can train; None for no limit."""

    def finish_asking(self, trial: int) -> None:
        """Give a trial that is in the study already the parameters that it lacks: its process ended while it asked."""

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        """A trial cannot be trained: out of memory, its loss is not finite, it cannot be built, or its workers died."""

    def given_up(self) -> list[int]:
        """The numbers of unfinished trials that will not be trained further, those told before left out."""


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
        ended: the epoch after which its training ended by itself, with some left; 0 where it did not.
    """

    trial: int
    batch_size: int
    learning_rate: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    curve: dict[int, tuple[float, float]] = field(default_factory=dict)
    state: TrialState = "paused"
    until_epoch: int = 0
    reason: str = ""
    ended: int = 0

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

    def stay(self, max_epochs: int) -> None:
        """Training has ended by itself: the value is after all epochs what it is now, at no more cost."""
        if self.epochs < max_epochs:
            self.ended = self.epochs
            self.curve[max_epochs] = (self.curve[self.epochs][0], 0.0)

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
