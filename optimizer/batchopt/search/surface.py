"""The posterior over the whole grid of batch sizes and learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.search.advising import OWN, RATES, advised_sizes
from batchopt.search.steps import Trial
from batchopt.search.surrogate.covariance import Covariance
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.gp import Surrogate
from batchopt.search.surrogate.threads import on_one_thread
from batchopt.search.trials import observed, rotation

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """The posterior over the whole grid.

    Attributes:
        batch_sizes: ascending, shape (sizes,).
        learning_rates: ascending, shape (rates,).
        mean, low, high: median and 90 % interval of what each is worth, shape (rates, sizes).
    """

    batch_sizes: list[int]
    learning_rates: list[float]
    mean: FloatArray
    low: FloatArray
    high: FloatArray


@on_one_thread
def surface(trials: Sequence[Trial], space: SearchSpace, *, max_epochs: int, sign: float) -> Surface | None:
    """The posterior over the grid, extra dimensions at the best trial's; arguments as for `advise`."""
    cube = Cube(space.distributions())
    curves = observed(trials, cube, max_epochs=max_epochs, sign=sign)
    if curves is None:
        return None
    surrogate = Surrogate(curves, prior=Covariance(rotation(space, cube)))
    seen = [trial for trial in trials if trial.curve and trial.state != "infeasible"]
    best = max(seen, key=lambda trial: (trial.state == "complete", sign * trial.curve[trial.epochs][0]))
    sizes, rates = advised_sizes(space, seen), space.grid_learning_rates(RATES).tolist()
    grid = [{**best.extra, BATCH_SIZE: size, LEARNING_RATE: rate} for rate in rates for size in sizes]
    values = np.sort(
        sign * surrogate.quantiles(*surrogate.at_end(cube.encode(grid), own=OWN), [0.05, 0.5, 0.95]), axis=0
    )
    low, mean, high = values.reshape(3, len(rates), len(sizes))
    return Surface(sizes, rates, mean, low, high)
