"""What an epoch costs: probed where the machine was probed, else learned from the epochs that were trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Self

import numpy as np

from batchopt.search.steps import Trial

REFERENCE_BATCH_SIZE = 64
PRIOR_SLOPE, PRIOR_SLOPE_SD = -0.35, 0.35
"""Of log seconds against log batch size: between 0 (time goes with examples) and -1 (time goes with steps)."""

BEND_SD = 0.05
RELATIVE_NOISE = 0.1


class EpochCost:
    """Seconds per epoch at any batch size: log seconds is a quadratic in log batch size, with a prior on its slope.

    Args:
        batch_sizes: of the trials that were timed, in examples, shape (trials,).
        seconds: their mean seconds per epoch, above 0, shape (trials,).
        probed: batch size -> seconds per epoch, where this machine was measured; then nothing is learned.
    """

    def __init__(
        self,
        batch_sizes: Sequence[int],
        seconds: Sequence[float],
        *,
        probed: Callable[[int], float] | None = None,
    ) -> None:
        self._probed = probed
        self._timed: Callable[[], Iterable[tuple[int, float]]] = lambda: zip(batch_sizes, seconds, strict=True)

    @classmethod
    def learned(cls, timed: Callable[[], Iterable[tuple[int, float]]]) -> Self:
        """The cost by trials that are asked for where it is first wanted: batch sizes, and mean seconds per epoch."""
        cost = cls([], [])
        cost._timed = timed
        return cost

    @cached_property
    def _weights(self) -> tuple[float, float, float]:
        """Level, slope and bend; learned where they are first asked for, as a probed machine never asks."""
        timed = list(self._timed())
        logs = {size: math.log(size / REFERENCE_BATCH_SIZE) for size in {size for size, _ in timed}}
        log_size = np.array([logs[size] for size, _ in timed])
        features = np.stack([np.ones_like(log_size), log_size, log_size**2], axis=1)
        prior = np.array([0.0, PRIOR_SLOPE, 0.0])
        # The level is unknown: its prior is as good as flat.
        precision = np.diag([1e-6, PRIOR_SLOPE_SD**-2, BEND_SD**-2])
        target = np.log(np.array([seconds for _, seconds in timed], dtype=float)) - features @ prior
        gram = features.T @ features / RELATIVE_NOISE**2 + precision
        weights = prior + np.linalg.solve(gram, features.T @ target / RELATIVE_NOISE**2)
        level, slope, bend = weights.tolist()
        return level, slope, bend

    def __call__(self, batch_size: int) -> float:
        """Seconds per epoch at a batch size; in units of the reference size where nothing was ever timed."""
        if self._probed is not None:
            return float(self._probed(batch_size))
        log_size = math.log(batch_size / REFERENCE_BATCH_SIZE)
        level, slope, bend = self._weights
        log_seconds = level + log_size * (slope + log_size * bend)
        return math.exp(min(max(log_seconds, -30.0), 30.0))


class Timings:
    """What an epoch of each trial takes: kept beside the trials, so that no decision has to ask all of them."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, float]] = {}

    @property
    def any(self) -> bool:
        """Whether a trial was timed."""
        return bool(self._of)

    def note(self, trial: Trial) -> None:
        """A trial has come to be what it is."""
        self.forget(trial.trial)
        if (seconds := trial.seconds_per_epoch) > 0:
            self._of[trial.trial] = trial.batch_size, seconds

    def forget(self, trial: int) -> None:
        """There is no trial of this number any more."""
        self._of.pop(trial, None)

    def cost(self, probed: Callable[[int], float] | None) -> EpochCost:
        """What an epoch costs, as far as these tell, or as this machine was measured."""
        if probed is not None:
            return EpochCost([], [], probed=probed)
        return EpochCost.learned(lambda: [self._of[trial] for trial in sorted(self._of)])
