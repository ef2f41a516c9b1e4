"""Real learning curves as problems for a search: 48 of them over 17 data sets, see `data/README.md`.

Values are percent of accuracy, interpolated between the cells of the grid in the logarithms; seconds are the median
over the rates of each batch size. Curves are without noise; a run gets an offset of its own and a jitter of every
epoch, so that its final value differs from the mean by a given part of the range of final values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from batchopt.question.space import SearchSpace
from families import Landscape

FloatArray = npt.NDArray[np.float64]

DATA = Path(__file__).with_name("data") / "lcbench.npz"
SPLIT = 1 / math.sqrt(2)
"""Of a run's noise, the part that is the whole run's, and the part of each epoch: their squares add up to 1."""


@functools.cache
def _stored() -> dict[str, FloatArray]:
    with np.load(DATA) as stored:
        return {name: stored[name] for name in stored.files}


def problems(half: str = "") -> list[str]:
    """The names of the problems: all of them, or those of every other data set, from the first ("a") or the second."""
    names = [str(name) for name in _stored()["task"]]
    tasks = sorted({name.split("-")[0] for name in names}, key=int)
    return [name for name in names if not half or tasks.index(name.split("-")[0]) % 2 == "ab".index(half)]


def make(problem: str, seed: int, noise: float = 0.0) -> Landscape:
    """One problem.

    Args:
        problem: its name.
        seed: draws the noise of runs.
        noise: standard deviation of a run's final value, in parts of the range of final values.
    """
    stored = _stored()
    index = [str(name) for name in stored["task"]].index(problem)
    sizes, rates = stored["batch_size"], stored["learning_rate"]
    values = stored["accuracy"][index].astype(float) / 100
    per_epoch = np.median(stored["seconds_per_epoch"][index].astype(float), axis=1)
    finals, epochs = values[..., -1], values.shape[-1]
    span = float(np.ptp(finals))
    log_sizes, log_rates = np.log(sizes), np.log(rates)

    def interpolated(table: FloatArray, batch_size: int, learning_rate: float) -> FloatArray:
        row, column = _place(log_sizes, math.log(batch_size)), _place(log_rates, math.log(learning_rate))
        (i, u), (j, v) = row, column
        low, high = (1 - v) * table[i, j] + v * table[i, j + 1], (1 - v) * table[i + 1, j] + v * table[i + 1, j + 1]
        return np.asarray((1 - u) * low + u * high)

    def curve(batch_size: int, learning_rate: float, run: int, extra: Mapping[str, float]) -> FloatArray:
        rng = np.random.default_rng([seed, run, 7])
        wobble = noise * span * SPLIT * (rng.standard_normal() + rng.standard_normal(epochs))
        return interpolated(values, batch_size, learning_rate) + wobble

    return Landscape(
        problem,
        SearchSpace(batch_size=(int(sizes[0]), int(sizes[-1])), learning_rate=(float(rates[0]), float(rates[-1]))),
        epochs,
        "maximize",
        lambda batch_size, learning_rate, extra: float(interpolated(finals, batch_size, learning_rate)),
        curve,
        lambda batch_size: float(np.interp(math.log(batch_size), log_sizes, per_epoch)),
        float(finals.max()),
        span,
        float(per_epoch.mean() * epochs),
    )


def cells(made: Landscape) -> list[tuple[float, float]]:
    """The value and the seconds of every cell of the grid, without noise."""
    stored = _stored()
    return [
        (made.final(int(size), float(rate), {}), made.seconds_per_epoch(int(size)) * made.max_epochs)
        for size in stored["batch_size"]
        for rate in stored["learning_rate"]
    ]


def _place(grid: FloatArray, at: float) -> tuple[int, float]:
    """The cell below, and how far from it to the next one."""
    below = int(np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2))
    return below, float(np.clip((at - grid[below]) / (grid[below + 1] - grid[below]), 0.0, 1.0))
