"""What the scheduler knows of a trial, and what it makes of all of them: points for the surrogate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import LEAST_SPREAD, Curves

T = TypeVar("T")


class Trials(dict[int, Trial]):
    """Trials by number. Their order is kept from one change to the next: a decision asks for it a dozen times."""

    def __init__(self) -> None:
        self._ordered: list[Trial] | None = None

    def __setitem__(self, number: int, trial: Trial) -> None:
        super().__setitem__(number, trial)
        self._ordered = None

    def remove(self, number: int) -> None:
        """There is no trial of this number any more, if there was one."""
        self.pop(number, None)
        self._ordered = None

    def in_order(self) -> list[Trial]:
        """By number."""
        if self._ordered is None:
            self._ordered = [self[number] for number in sorted(self)]
        return self._ordered


FAR = 100.0
"""In units of what the median is below the best: what is worse than that says no more than that it is the worst. A
diverging loss may be 1e42 and finite, and would have whatever is near it expected anywhere.
"""


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
    value = _held(value)
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


def _held(values: Sequence[float]) -> list[float]:
    """Values, larger ones better, with those far below all others held where they still say which are worst."""
    best = max(values)
    lowest = best - FAR * max(best - float(np.median(values)), LEAST_SPREAD * abs(best))
    return [max(value, lowest) for value in values] if lowest < best else list(values)


def rotation(space: SearchSpace, cube: Cube) -> tuple[int, int, float] | None:
    """The surrogate's `rotation`: how the rate may turn with the batch size; None where one of them is fixed."""
    low, high = space.learning_rate
    if low == high or space.smallest == space.largest:
        return None
    ratio = math.log(space.largest / space.smallest) / math.log(high / low)
    return cube.column(BATCH_SIZE), cube.column(LEARNING_RATE), ratio


def newest(trials: Sequence[T], window: int | None, goes_on: Callable[[T], bool]) -> list[T]:
    """Trials in order, but of those that have ended no more than the newest `window`; all where that is None."""
    if window is None:
        return list(trials)
    ended = [place for place, trial in enumerate(trials) if not goes_on(trial)]
    past = set(ended[: max(0, len(ended) - window)])
    return [trial for place, trial in enumerate(trials) if place not in past]
