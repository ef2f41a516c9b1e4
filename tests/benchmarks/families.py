"""Synthetic families of learning curves with a known optimum: what a search is tuned and judged on.

Every member of a family is drawn from (family, seed): where the optimum lies, how wide it is, how the learning rate
moves with the batch size, how fast a run learns, what an epoch costs, and the scale of the values (accuracy in 0..1,
percent, or a loss to be minimised). A gap is the distance from the best value in parts of the range: 0 best, 1 worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from batchopt.question.space import SearchSpace
from optuna.distributions import FloatDistribution

FloatArray = npt.NDArray[np.float64]

FAMILIES = ("ridge", "plateau", "cliff", "late", "edge", "noise", "annealed")
TABLE = Path(__file__).with_name("data") / "mnist_table.npz"
HEAVY_NOISE = 0.01
"""Standard deviation of a final value, in parts of the range: as much as the tolerance. With twice as much, which trial
is the best observed is luck more than merit, and so would the figure be."""

GRID = 65
"""Points a side of the grid on which the best and the range of final values are measured."""


@dataclass(frozen=True)
class Landscape:
    """One problem: what every configuration would give, were it trained.

    Attributes:
        name: family and seed.
        space: what may be tried.
        max_epochs: epochs of a whole trial.
        direction: of the values.
        final: (batch size, rate, extra) -> the noise-free value after all epochs; NaN where training diverges.
        curve: (batch size, rate, seed of the run, extra) -> observed values, shape (max_epochs,); NaN from where it
            diverges.
        seconds_per_epoch: batch size -> simulated seconds.
        best: the best noise-free final value over the space.
        span: the range of final values over the space.
        mean_trial_s: seconds of one whole trial, averaged over the space.
    """

    name: str
    space: SearchSpace
    max_epochs: int
    direction: Literal["maximize", "minimize"]
    final: Callable[..., float]
    curve: Callable[..., FloatArray]
    seconds_per_epoch: Callable[[int], float]
    best: float
    span: float
    mean_trial_s: float

    def gap(self, batch_size: int, learning_rate: float, extra: Mapping[str, float] | None = None) -> float:
        """How far a configuration's noise-free final value is from the best, in parts of the range."""
        gap = abs(self.final(batch_size, learning_rate, extra or {}) - self.best) / self.span
        return gap if math.isfinite(gap) else math.inf


def make(family: str, seed: int) -> Landscape:
    """The member of a family that a seed draws; `mnist` is the recorded table, its runs drawn by the seed.

    `ridge+2` is the ridge with two extra dimensions, each as wide as a weight decay usually is: a tenth of its range or
    more is as good as the best.
    """
    if family == "mnist":
        return _recorded(seed)
    name, _, extra = family.partition("+")
    return _synthetic(name, seed, int(extra or 0))


def _synthetic(family: str, seed: int, dims: int) -> Landscape:
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    names = [f"extra{dim}" for dim in range(dims)]
    extras = {name: FloatDistribution(0.0, 1.0) for name in names}
    space = SearchSpace(batch_size=(16, 512), learning_rate=(1e-4, 1e-1), extra=extras)
    max_epochs = int(rng.choice([20, 52]))
    gaps = _Gaps(family, rng, max_epochs)
    # Drawn last, so that the family without them is what it is; where they are best is in the interior.
    off_rng = np.random.default_rng([seed, dims, 11])
    middle, width = off_rng.uniform(0.2, 0.8, dims), off_rng.uniform(0.4, 0.9, dims)

    def gap(batch_size: int, learning_rate: float, extra: Mapping[str, float]) -> FloatArray:
        curve = gaps.curve(*space.to_unit(batch_size, learning_rate))
        off = sum(((extra[name] - at) / wide) ** 2 for name, at, wide in zip(names, middle, width, strict=True))
        return 1.0 - (1.0 - curve) * math.exp(-0.5 * off)

    noise = HEAVY_NOISE if family == "noise" else float(rng.choice([0.001, 0.003, 0.006]))
    direction, to_value = _scale(rng)
    overhead = float(np.exp(rng.uniform(math.log(0.2), math.log(6.0))))

    def seconds_per_epoch(batch_size: int) -> float:
        return 1.0 + overhead * 64 / batch_size

    def final(batch_size: int, learning_rate: float, extra: Mapping[str, float]) -> float:
        return to_value(float(gap(batch_size, learning_rate, extra)[-1]))

    def curve(batch_size: int, learning_rate: float, run: int, extra: Mapping[str, float]) -> FloatArray:
        run_rng = np.random.default_rng([seed, run, 7])
        wobble = noise * (0.7 * run_rng.standard_normal() + 0.7 * run_rng.standard_normal(max_epochs))
        return np.array([to_value(at) for at in gap(batch_size, learning_rate, extra) + wobble])

    units = np.linspace(0, 1, GRID)
    grid = [space.from_unit((u, v)) for u in units for v in units]
    best_extra = dict(zip(names, middle.tolist(), strict=True))
    finals = np.array([final(*cell, best_extra) for cell in grid])
    finite = finals[np.isfinite(finals)]
    best = finite.max() if direction == "maximize" else finite.min()
    costs = [max_epochs * seconds_per_epoch(size) for size, _ in grid]
    return Landscape(
        f"{family} {seed}",
        space,
        max_epochs,
        direction,
        final,
        curve,
        seconds_per_epoch,
        float(best),
        float(np.ptp(finite)),
        float(np.mean(costs)),
    )


def _scale(rng: np.random.Generator) -> tuple[Literal["maximize", "minimize"], Callable[[float], float]]:
    top, span = rng.uniform(0.6, 0.99), rng.uniform(0.2, 0.55)
    kind = int(rng.integers(3))
    if kind == 0:
        return "maximize", lambda gap: top - span * gap
    if kind == 1:
        return "maximize", lambda gap: 100 * (top - span * gap)
    floor, growth = rng.uniform(0.02, 0.5), rng.uniform(0.5, 2.0)
    return "minimize", lambda gap: floor + math.expm1(growth * gap) / growth


class _Gaps:
    """The noise-free gap of every epoch, over the unit square (log batch size, log rate)."""

    def __init__(self, family: str, rng: np.random.Generator, max_epochs: int) -> None:
        self._family = family
        self._t = np.arange(1, max_epochs + 1) / max_epochs
        self._coupling = rng.uniform(0.0, 1.0) * 0.5  # of the rate's unit per unit of batch size, 1 decade in 3
        inside = {"edge": (-0.15, 0.02) if rng.random() < 0.5 else (0.98, 1.15)}.get(family, (0.15, 0.85))
        self._u0 = rng.uniform(*inside)
        self._v0 = rng.uniform(0.25, 0.8)
        if family == "edge" and rng.random() < 0.5:
            self._u0, self._v0 = rng.uniform(0.2, 0.8), rng.uniform(*inside)
        self._width = rng.uniform(0.12, 0.3)
        self._along = rng.uniform(0.5, 1.5)
        self._skew = rng.uniform(1.0, 2.0)
        self._edge = rng.uniform(0.02, 0.12)
        self._dies_early = rng.random() < 0.7
        self._speed = rng.uniform(4.0, 25.0)
        self._faster = rng.uniform(0.5, 2.0)
        self._soft = rng.uniform(0.04, 0.1)
        self._late = rng.uniform(0.15, 0.5)

    def curve(self, u: float, v: float) -> FloatArray:
        """Gaps after each epoch, shape (max_epochs,)."""
        t = self._t
        off = v - self._v0 - self._coupling * (u - self._u0)
        along = (u - self._u0) / self._along
        skewed = off * (self._skew if off > 0 else 1.0)
        if self._family == "plateau":
            distance = math.hypot(skewed / (1.3 * self._width), along)
            end = 1 / (1 + math.exp(-(distance - 1.0) / (4 * self._soft))) * 0.98 + 0.02 * min(distance, 1.0)
        else:
            end = 1 - math.exp(-0.5 * (skewed / self._width) ** 2 - 0.5 * along**2)
        if self._family == "cliff" and off > self._edge:
            if self._dies_early:
                died = max(1, round(len(t) * 0.15 * self._edge / off))
                return np.where(np.arange(len(t)) < died, 1.0, np.nan)
            return np.full(len(t), 1.0)
        if self._family == "late":
            # The better in the end, the further behind before: curves cross, a quarter of the way misleads.
            behind = self._late * (1 - end) * (1 - t) ** 1.5
            return end + behind + (1 - end) * np.exp(-12 * t)
        if self._family == "annealed":
            # The rate falls to zero along half a cosine: a high rate shows its worth at the end.
            learned = np.exp(-self._speed * math.exp(self._faster * (v - 0.5)) * t)
            floor = 0.35 * min(max(v, 0.0), 1.0) ** 2 * np.cos(0.5 * math.pi * t) ** 2
            return end + (1 - end) * (1 - (1 - learned) * (1 - floor))
        speed = self._speed * math.exp(self._faster * (v - 0.5) - 0.7 * (u - 0.5))
        return end + (1 - end) * np.exp(-speed * t**0.7)


def _recorded(seed: int) -> Landscape:
    """The reference model on MNIST, as recorded; between its cells, the nearest cell by ratio."""
    if not TABLE.exists():
        raise SystemExit(f"{TABLE} is missing. Record it with: python tests/benchmarks/record_table.py")
    with np.load(TABLE) as table:
        sizes, rates = table["batch_sizes"], table["learning_rates"]
        values, seconds = table["val_accuracy"], table["train_seconds"]
    space = SearchSpace(batch_size=(int(sizes.min()), int(sizes.max())), learning_rate=(rates.min(), rates.max()))
    means = values[..., -1].mean(axis=2)
    # The median over rates, seeds and epochs: the recording machine's other work is not the batch size's cost.
    per_epoch = np.nanmedian(seconds.reshape(len(sizes), -1), axis=1)

    def cell(batch_size: int, learning_rate: float) -> tuple[int, int]:
        row = int(np.abs(np.log(sizes / batch_size)).argmin())
        return row, int(np.abs(np.log(rates / learning_rate)).argmin())

    def curve(batch_size: int, learning_rate: float, run: int, extra: Mapping[str, float]) -> FloatArray:
        draw = int(np.random.default_rng([seed, run]).integers(values.shape[2]))
        return np.asarray(values[*cell(batch_size, learning_rate), draw], dtype=float)

    return Landscape(
        f"mnist {seed}",
        space,
        values.shape[3],
        "maximize",
        lambda batch_size, learning_rate, extra: float(means[cell(batch_size, learning_rate)]),
        curve,
        lambda batch_size: float(per_epoch[cell(batch_size, 1e-3)[0]]),
        float(means.max()),
        float(np.ptp(means)),
        float(per_epoch.mean() * values.shape[3]),
    )
