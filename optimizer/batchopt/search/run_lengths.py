"""How many epochs a run takes: fewer than all of them where training ends by itself, as early stopping ends it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube

FloatArray = npt.NDArray[np.float64]

SAME = 1e-9
"""Configurations at a smaller distance are the same one."""

POWER = 4.0
"""Of the distance; above the number of dimensions, so that what is far away does not outweigh what is near."""


class RunLengths:
    """Epochs of a whole run at any configuration, from the trials that were trained to their end.

    Where none has ended by itself, all of them. Else a configuration that was trained takes what its own trials took,
    on average; any other one a mean of all, weighted by the inverse of its distance to them.

    Source: Shepard 1968, A two-dimensional interpolation function for irregularly-spaced data.

    Args:
        trials: in any state.
        cube: coordinates of configurations.
        max_epochs: of a whole trial.
    """

    def __init__(self, trials: Sequence[Trial], cube: Cube, *, max_epochs: int) -> None:
        whole = [trial for trial in trials if trial.state == "complete"]
        self._cube, self._max_epochs = cube, max_epochs
        self._points: FloatArray | None = None
        if any(trial.ended for trial in whole):
            self._points = cube.encode(trial.params for trial in whole)
            self._epochs = np.array([trial.ended or max_epochs for trial in whole], dtype=float)

    def __call__(self, points: FloatArray) -> FloatArray:
        """Epochs of a run, shape (points,), at coordinates of shape (points, width)."""
        if self._points is None:
            return np.full(len(points), float(self._max_epochs))
        distance = np.sqrt(((points[:, None] - self._points) ** 2).sum(-1))
        weight = np.where(
            distance.min(axis=1, keepdims=True) < SAME, distance < SAME, np.maximum(distance, SAME) ** -POWER
        )
        return np.asarray(weight @ self._epochs / weight.sum(axis=1))

    def left(self, trial: Trial) -> float:
        """Epochs of the step that a trial is at: up to where it ends, or where training is expected to."""
        length = float(self(self._cube.encode([trial.params]))[0])
        return max(min(trial.until_epoch, length) - trial.epochs, 1.0)
