"""What the evidence says in the end: for every batch size the best learning rate, its worth, and how sure that is.

The posterior of the whole grid of batch sizes and rates is asked, never the luckiest trial: of many noisy values the
highest is too high, and the more trials, the more so (the winner's curse). What is advised is the configuration that is
expected best among those that were trained to the end, because nobody should stake days on one that never was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace, powers_of_two
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.surrogate.gp import Surrogate
from batchopt.search.surrogate.threads import on_one_thread
from batchopt.search.trials import observed, rotation

FloatArray = npt.NDArray[np.float64]

RATES = 33
"""Learning rates of the grid, log-spaced; those that were trained are added."""

LEVELS = (0.05, 0.15865, 0.5, 0.84135, 0.95)
"""A 90 % interval, one standard error to both sides of the middle, and the middle."""

OWN = 0.75
"""The part of what looks like a difference of two runs that is taken for the configuration's own: with one run of each
the two cannot be told apart. Chosen so that intervals hold what they should, see `tests/benchmarks/answer.py`."""

MAY_BE_BETTER = 0.05
"""A batch size is told apart from the best once it is less likely than this to be better."""

POWER = 0.8
"""As many more runs as are asked for tell the two apart in so many of studies, the gap being as uncertain as it is.
Counted for a gap exactly as expected, as the power of a test is, they did in 63 % of 79 simulated studies: the true gap
is smaller than expected in every other one. What is counted here is the assurance (O'Hagan, Stevens, Campbell 2005)."""

FASTER = 0.95
"""Of the best one's seconds: what needs more is not called faster, as timings differ by some per cent."""

MOST_RUNS = 200
"""More runs than this would not be made: the difference is too small to matter."""


@dataclass(frozen=True)
class Estimate:
    """What a configuration is worth: the final value of a run of it, without what runs differ by.

    Attributes:
        batch_size, learning_rate, extra: the configuration.
        mean: the median of the posterior, in the units of the values.
        low, high: its 90 % interval.
        standard_error: half the interval that holds 68 %.
        chance_best: probability to be better than the best configuration; 0.5 for that one itself.
        seconds: of one whole run.
        runs: trials of this batch size with at least one epoch.
        trial: the number of the trial of this configuration; -1 where there is none.
        gap: how far it is behind the best configuration, by what both are expected to be worth or by that less one
            standard error, whichever is more; so what is little known is not near the best.
    """

    batch_size: int
    learning_rate: float
    extra: Mapping[str, Any]
    mean: float
    low: float
    high: float
    standard_error: float
    chance_best: float
    seconds: float
    runs: int
    trial: int
    gap: float = 0.0

    @property
    def params(self) -> dict[str, Any]:
        """By the names of its dimensions."""
        return {BATCH_SIZE: self.batch_size, LEARNING_RATE: self.learning_rate, **self.extra}


@dataclass(frozen=True)
class Undecided:
    """A batch size that may well be better than the best one, as far as the data say.

    Attributes:
        chance: that it is.
        runs: whole runs of it beside those there are, and as many of the best, that would most likely tell the two
            apart if they differ by what is expected; None where far too many would, because they hardly differ.
        seconds: of all these runs.
    """

    batch_size: int
    chance: float
    runs: int | None
    seconds: float | None


@dataclass(frozen=True)
class Advice:
    """What to use, and what else would do.

    Attributes:
        best: the configuration to use.
        complete: whether it was trained to its end; else no trial was.
        by_batch_size: the best configuration of each batch size that fits, ascending.
        tolerance: what counts as equally good, in the units of the values.
        as_good: batch sizes whose best is behind the best by no more than the tolerance, ascending; that of `best` is
            one of them.
        fastest: of these the one whose run takes least; `best` where none is faster by more than timings differ.
        undecided: what the data cannot tell apart from the best, ascending.
        run_sd: standard deviation of one run's final value around its configuration's worth.
    """

    best: Estimate
    complete: bool
    by_batch_size: list[Estimate]
    tolerance: float
    as_good: list[int]
    fastest: Estimate
    undecided: list[Undecided]
    run_sd: float

    def at(self, batch_size: int) -> Estimate | None:
        """The best configuration of a batch size."""
        return next((row for row in self.by_batch_size if row.batch_size == batch_size), None)


@dataclass(frozen=True)
class Recommendation:
    """What to train with, and how sure that is.

    Attributes:
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        mean: the expected final value (the median of the posterior), without what runs differ by; where there is a
            target, the seconds until it is reached.
        low, high: its 90 % interval.
        extra: values of the extra dimensions.
        trial: the number of the trial in which this configuration was trained.
        complete: whether that trial was trained to the end, or to the target.
    """

    batch_size: int
    learning_rate: float
    mean: float
    low: float
    high: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    trial: int = -1
    complete: bool = True

    @classmethod
    def of(cls, advice: Advice) -> Recommendation:
        """The best of what is advised."""
        best = advice.best
        size, rate = best.batch_size, best.learning_rate
        return cls(size, rate, best.mean, best.low, best.high, best.extra, best.trial, advice.complete)


@on_one_thread
def advise(
    trials: Sequence[Trial],
    space: SearchSpace,
    *,
    max_epochs: int,
    sign: float,
    seconds_per_epoch: Callable[[int], float],
    max_batch_size: int | None = None,
    tolerance: float | None = None,
    curves: Curves | None = None,
) -> Advice | None:
    """What follows from the trials of a study.

    Args:
        trials: in any state, by number.
        space: what may be used.
        max_epochs: of a whole trial.
        sign: 1 where larger values are better, -1 where smaller ones are.
        seconds_per_epoch: batch size -> seconds, on the machine that is advised.
        max_batch_size: what that machine holds, in examples; None for no limit.
        tolerance: what counts as equally good, in the units of the values; None for one standard error of the best.
        curves: points of these trials, row i trial i; None for their values.

    Returns:
        None where no value was seen, or nothing that was tried fits.
    """
    cube = Cube(space.distributions())
    if curves is None:
        curves = observed(trials, cube, max_epochs=max_epochs, sign=sign)
    if curves is None:
        return None
    surrogate = Surrogate(curves, rotation=rotation(space, cube))

    def fits(batch_size: int) -> bool:
        return max_batch_size is None or batch_size <= max_batch_size

    seen = [trial for trial in trials if trial.curve and trial.state != "infeasible" and fits(trial.batch_size)]
    complete = [trial for trial in seen if trial.state == "complete"]
    candidates = complete or seen
    if not candidates:
        return None
    worth = surrogate.quantiles(*surrogate.at_end(cube.encode(trial.params for trial in candidates)), [0.5])[0]
    chosen = candidates[int(worth.argmax())]
    point = cube.encode([chosen.params])

    def sure(row: Estimate) -> float:
        """Worth at one standard error down: what nobody tried may be anything, and that is no reason to advise it."""
        return sign * row.mean - row.standard_error

    def estimates(configurations: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[Estimate]:
        points = cube.encode(configurations)
        values = sign * surrogate.quantiles(*surrogate.at_end(points, own=OWN), LEVELS)
        chances = surrogate.chance_ahead(points, point)
        found = []
        for configuration, value, chance, number in zip(configurations, values.T, chances, numbers, strict=True):
            low, lower, mean, upper, high = sorted(value.tolist())
            size = configuration[BATCH_SIZE]
            found.append(
                Estimate(
                    batch_size=size,
                    learning_rate=configuration[LEARNING_RATE],
                    extra={name: configuration[name] for name in space.extra},
                    mean=mean,
                    low=low,
                    high=high,
                    standard_error=(upper - lower) / 2,
                    chance_best=float(chance),
                    seconds=seconds_per_epoch(size) * max_epochs,
                    runs=sum(trial.batch_size == size for trial in seen),
                    trial=number,
                )
            )
        return found

    best = estimates([chosen.params], [chosen.trial])[0]
    rows = []
    for size in _sizes(space, seen):
        if not fits(size):
            continue
        if size == best.batch_size:
            rows.append(best)
            continue
        rates = space.grid_learning_rates(RATES).tolist()
        same = [trial for trial in candidates if trial.batch_size == size]
        configurations = [{**chosen.extra, BATCH_SIZE: size, LEARNING_RATE: rate} for rate in rates]
        configurations += [trial.params for trial in same]
        found = estimates(configurations, [-1] * len(rates) + [trial.trial for trial in same])
        rows.append(max(found, key=sure))
    margin = best.standard_error if tolerance is None else tolerance
    rows = [replace(row, gap=max(sign * (best.mean - row.mean), sure(best) - sure(row), 0.0)) for row in rows]
    good = [row for row in rows if row.gap <= margin]
    fastest = min(good, key=lambda row: row.seconds)
    rivals = [row for row in rows if row.batch_size != best.batch_size and row.chance_best > MAY_BE_BETTER]
    run_sd = surrogate.run_sd(point)
    return Advice(
        best=best,
        complete=bool(complete),
        by_batch_size=rows,
        tolerance=margin,
        as_good=[row.batch_size for row in good],
        fastest=fastest if fastest.seconds < FASTER * best.seconds else best,
        undecided=[_undecided(row, best, run_sd) for row in rivals],
        run_sd=run_sd,
    )


def _sizes(space: SearchSpace, seen: Sequence[Trial]) -> list[int]:
    """The batch sizes of the table: the ladder; of a whole integer range its powers of two, and those trained."""
    if isinstance(space.batch_size, list):
        return list(space.batch_size)
    return sorted({*powers_of_two(space.smallest, space.largest), *(trial.batch_size for trial in seen)})


def _undecided(row: Estimate, best: Estimate, run_sd: float) -> Undecided:
    """How many more runs of each it takes until the gap is most likely as many standard errors as it must be.

    What is known already is the variance v of the difference. It and n runs of each, whose difference has the variance
    2 run_sd^2 / n, leave w = 1 / (1 / v + n / (2 run_sd^2)). The gap that they will show varies by v - w around what is
    expected now, and tells the two apart where it is z sqrt(w) or more, whichever of the two is ahead.
    """
    gap = abs(best.mean - row.mean)
    known = row.standard_error**2 + best.standard_error**2
    counts = np.arange(1, MOST_RUNS + 1)
    if known > 0:
        left = 1 / (1 / known + counts / max(2 * run_sd**2, 1e-300))
        needed, moves = ndtri(1 - MAY_BE_BETTER) * np.sqrt(left), np.sqrt(np.maximum(known - left, 1e-300))
        told = ndtr((gap - needed) / moves) + ndtr((-gap - needed) / moves)
        enough = np.flatnonzero(told >= POWER)
    if not known > 0 or not len(enough):
        return Undecided(row.batch_size, row.chance_best, None, None)
    count = int(counts[enough[0]])
    return Undecided(row.batch_size, row.chance_best, count, count * (row.seconds + best.seconds))


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
    surrogate = Surrogate(curves, rotation=rotation(space, cube))
    seen = [trial for trial in trials if trial.curve and trial.state != "infeasible"]
    best = max(seen, key=lambda trial: (trial.state == "complete", sign * trial.curve[trial.epochs][0]))
    sizes, rates = _sizes(space, seen), space.grid_learning_rates(RATES).tolist()
    grid = [{**best.extra, BATCH_SIZE: size, LEARNING_RATE: rate} for rate in rates for size in sizes]
    values = np.sort(
        sign * surrogate.quantiles(*surrogate.at_end(cube.encode(grid), own=OWN), [0.05, 0.5, 0.95]), axis=0
    )
    low, mean, high = values.reshape(3, len(rates), len(sizes))
    return Surface(sizes, rates, mean, low, high)
