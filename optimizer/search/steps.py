"""The seam between what decides and what trains: a search hands out steps, and is told what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from optimizer.search.trials import Trial

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

    def tell(self, trial: int, epoch: int, value: float, seconds: float) -> None:
        """One epoch of a trial was trained: its value, and its training seconds."""

    def learn(self, trial: Trial) -> None:
        """What the study holds of a trial that this process does not train now.

        A `paused` one is nobody's and may be handed out; a `running` one is another process's, even where it was
        handed out here before. One that would have been given up is told by `given_up`.
        """

    def finish_asking(self, trial: int) -> None:
        """Give a trial that is in the study already the parameters that it lacks: its process ended while it asked."""

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        """A trial cannot be trained: out of memory, its loss is not finite, it cannot be built, or its workers died."""

    def given_up(self) -> list[int]:
        """The numbers of unfinished trials that will not be trained further, those told before left out."""
