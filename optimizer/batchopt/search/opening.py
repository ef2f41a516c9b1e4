"""Before any value was seen: one well-placed trial, then spread out, with lower rates where training diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.search.steps import Trial
from batchopt.search.surrogate.candidates import candidates
from batchopt.search.surrogate.cube import Cube

REFERENCE_BATCH_SIZES = (32, 256)
REFERENCE_LEARNING_RATES = (1e-3, 1e-2)
"""The first trial lies at the middle of the space, moved into these ranges: where most models learn."""

INTERIOR = 0.12
"""The next ones keep this distance from the faces of the space."""


def opening(
    space: SearchSpace, cube: Cube, trials: Sequence[Trial], *, seed: int, max_batch_size: int | None
) -> dict[str, Any] | None:
    """A configuration to begin with.

    Args:
        space, cube: what may be tried.
        trials: those there are, none of which has a value yet.
        seed: of the study.
        max_batch_size: what this machine holds, in examples; None for no limit.

    Returns:
        The configuration by dimension; None where no batch size of the space fits in memory.
    """
    params = reference(space)
    if trials:
        rng = np.random.default_rng([seed, len(trials)])
        point = candidates(cube, np.empty((0, cube.width)), rng)[:1]
        columns = cube.numeric_columns
        point[:, columns] = INTERIOR + (1.0 - 2.0 * INTERIOR) * point[:, columns]
        low, high = space.learning_rate
        start = params[LEARNING_RATE]
        params = space.snapped(cube.decode(point)[0])
        diverged = sum(trial.reason == "diverged" for trial in trials)
        if diverged:
            # Half the way down to the lowest rate, in decades, for each trial that diverged.
            params[LEARNING_RATE] = _within(low * (start / low) ** 0.5**diverged, low, high)
    if max_batch_size is not None and params[BATCH_SIZE] > max_batch_size:
        fitting = [int(size) for size in space.grid_batch_sizes() if size <= max_batch_size]
        if not fitting:
            return None
        params[BATCH_SIZE] = fitting[-1] if len(trials) % 2 else fitting[len(fitting) // 2]
    return params


def reference(space: SearchSpace) -> dict[str, Any]:
    """Where most models learn: the middle of the space, moved into the reference ranges."""
    size = _within(math.sqrt(space.smallest * space.largest), *REFERENCE_BATCH_SIZES)
    low, high = space.learning_rate
    rate = _within(_within(math.sqrt(low * high), *REFERENCE_LEARNING_RATES), low, high)
    return {BATCH_SIZE: space.nearest_batch_size(size), LEARNING_RATE: rate, **space.middle_of_extra()}


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
