"""What an epoch costs: probed where the machine was probed, else learned from the epochs that were trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
        features = np.array([_features(size) for size in batch_sizes]).reshape(-1, 3)
        prior = np.array([0.0, PRIOR_SLOPE, 0.0])
        # The level is unknown: its prior is as good as flat.
        precision = np.diag([1e-6, PRIOR_SLOPE_SD**-2, BEND_SD**-2])
        target = np.log(np.asarray(seconds, dtype=float)) - features @ prior
        gram = features.T @ features / RELATIVE_NOISE**2 + precision
        weights = prior + np.linalg.solve(gram, features.T @ target / RELATIVE_NOISE**2)
        self._level, self._slope, self._bend = weights.tolist()

    @classmethod
    def of(cls, trials: Sequence[Trial], probed: Callable[[int], float] | None) -> EpochCost:
        """What the timed ones of these trials say, where nothing was probed."""
        timed = [trial for trial in trials if trial.seconds_per_epoch > 0]
        return cls([trial.batch_size for trial in timed], [trial.seconds_per_epoch for trial in timed], probed=probed)

    def __call__(self, batch_size: int) -> float:
        """Seconds per epoch at a batch size; in units of the reference size where nothing was ever timed."""
        if self._probed is not None:
            return float(self._probed(batch_size))
        log_size = math.log(batch_size / REFERENCE_BATCH_SIZE)
        log_seconds = self._level + log_size * (self._slope + log_size * self._bend)
        return math.exp(min(max(log_seconds, -30.0), 30.0))


def _features(batch_size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    log_size = math.log(batch_size / REFERENCE_BATCH_SIZE)
    return np.array([1.0, log_size, log_size**2])
