"""What the evidence says in the end: for every batch size the best learning rate, its worth, and how sure that is.

The posterior of the whole grid of batch sizes and rates is asked, never the luckiest trial: of many noisy values the
highest is too high, and the more trials, the more so (the winner's curse). What is recommended is what a practitioner
would use: of the configurations that lose no more than matters against the best, with a stated probability, the one
that takes least time (`preference.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from batchopt.question.goal import Prefer
from batchopt.question.space import BATCH_SIZE, COMMON_BATCH_SIZE, LEARNING_RATE, SearchSpace, powers_of_two
from batchopt.search.advice import Advice, AgainstDefault, Estimate, ToleranceIs, Undecided
from batchopt.search.preference import SURE, preferred
from batchopt.search.run_lengths import RunLengths
from batchopt.search.steps import Trial
from batchopt.search.surrogate.covariance import Covariance
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.surrogate.gp import Surrogate
from batchopt.search.surrogate.threads import on_one_thread
from batchopt.search.telling_apart import MAY_BE_BETTER, runs_to_tell
from batchopt.search.trials import observed, rotation

FloatArray = npt.NDArray[np.float64]

RATES = 33
"""Learning rates of the grid, log-spaced; those that were trained are added."""

COARSE_SIZES, COARSE_RATES = 11, 9
"""Of a coarse grid that the best may be of, beside what is compared: where few were trained, a batch size may be best
at another rate than it is thought to be."""

LEVELS = (0.05, 0.15865, 0.5, 0.84135, 0.95)
"""A 90 % interval, one standard error to both sides of the middle, and the middle."""

OWN = 0.5
"""The part of what looks like a difference of two runs that is taken for the configuration's own: with one run of each
the two cannot be told apart. Chosen so that intervals hold what they should, see `tests/benchmarks/answer.py`. Where
two are compared it is in the doubt alone, as the recommended one was chosen for its luck too."""

ALIKE = 0.02
"""Of an edge of the cube: runs that are nearer than this are as good as runs of one configuration."""

MATTERS = 0.01
"""What counts as equally good is at least this part of the range of the values that were seen: what `search/choices.py`
calls clearly better."""

NEARLY = 0.5
"""A rate that nobody trained has to be better by this part of the tolerance than one that was trained."""

JOINT_OWN = 0.1
"""The same part where a configuration is compared with the best: of many that are alike, each would be behind the
luckiest. Chosen so that as many are within the tolerance as are said to be, see there."""

DRAWS = 4096
"""Of all configurations together: a probability of 0.8 is then known to 0.01."""

KERAS_LEARNING_RATE = 0.001
"""The default of Adam and of most of Keras' optimizers."""


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
    prefer: Prefer = "balanced",
    matters: float | None = None,
) -> Advice | None:
    """What follows from the trials of a study.

    Args:
        trials: in any state, by number.
        space: what may be used.
        max_epochs: of a whole trial.
        sign: 1 where larger values are better, -1 where smaller ones are.
        seconds_per_epoch: batch size -> seconds, on the machine that is advised.
        max_batch_size: what that machine holds, in examples; None for no limit.
        tolerance: what counts as equally good, in the units of the values; None for what matters: the standard
            deviation of the difference of two runs of one configuration, and `matters` at least.
        curves: points of these trials, row i trial i; None for their values.
        prefer: what is recommended.
        matters: in the units of the values; None for the part `MATTERS` of their range.

    Returns:
        None where no value was seen, or nothing that was tried fits.
    """
    cube = Cube(space.distributions())
    if curves is None:
        curves = observed(trials, cube, max_epochs=max_epochs, sign=sign)
    if curves is None:
        return None
    surrogate = Surrogate(curves, prior=Covariance(rotation(space, cube)))

    def fits(batch_size: int) -> bool:
        return max_batch_size is None or batch_size <= max_batch_size

    seen = [trial for trial in trials if trial.curve and trial.state != "infeasible" and fits(trial.batch_size)]
    complete = [trial for trial in seen if trial.state == "complete"]
    heard = {trials[row].trial for row in surrogate.heard}
    candidates = [trial for trial in complete or seen if trial.trial in heard] or complete or seen
    if not candidates:
        return None
    worth = surrogate.quantiles(*surrogate.at_end(cube.encode(trial.params for trial in candidates)), [0.5])[0]
    chosen = candidates[int(worth.argmax())]
    run_sd = surrogate.run_sd(cube.encode([chosen.params]))
    least = MATTERS * surrogate.spread if matters is None else matters
    margin, why = _tolerance(tolerance, run_sd, least)

    sizes = [size for size in advised_sizes(space, seen) if fits(size)]
    configurations, numbers = _configurations(space, chosen, candidates, sizes)
    grid = cube.encode(configurations)
    row_of = {trial.trial: row for row, trial in enumerate(trials)}
    by_trial = [row_of.get(number, -1) for number in numbers]
    values = sign * surrogate.quantiles(*surrogate.at_end(grid, own=OWN, trials=by_trial), LEVELS)
    values.sort(axis=0)
    lengths = RunLengths(trials, cube, max_epochs=max_epochs)
    epochs = lengths(grid)
    kept = _best_rates(configurations, numbers, values, sign, NEARLY * margin)
    compared = [configurations[at] for at in kept]
    runs = Counter(trial.batch_size for trial in seen)
    default = {**chosen.extra, BATCH_SIZE: COMMON_BATCH_SIZE, LEARNING_RATE: KERAS_LEARNING_RATE}
    known_default = space.holds(default) and fits(COMMON_BATCH_SIZE)
    points = cube.encode(compared)
    within = _chances_within(surrogate, points, cube.encode(_others(space, chosen, sizes)), margin)
    rows = [
        _estimate(
            params,
            values[:, at],
            epochs=float(epochs[at]),
            seconds_per_epoch=seconds_per_epoch(params[BATCH_SIZE]),
            runs=runs[params[BATCH_SIZE]],
            trial=numbers[at],
            within=chance,
        )
        for params, at, chance in zip(compared, kept, within, strict=True)
    ]
    at = rows.index(preferred(rows, prefer, sign))
    # A configuration has nothing for itself against itself.
    apart = known_default and default not in compared
    pairs = cube.encode([*compared, default]) if apart else points
    alike = _runs_alike(pairs, cube.encode(trial.params for trial in complete))
    draws, weight = _drawn(surrogate, pairs, OWN / np.array(alike))
    ahead = draws[:, : len(rows)] - draws[:, [at]]
    rows = [replace(row, chance_better=_chance_above(gap, weight)) for row, gap in zip(rows, ahead.T, strict=True)]
    recommended = rows[at]
    against = None
    if known_default:
        seconds = seconds_per_epoch(COMMON_BATCH_SIZE) * float(lengths(cube.encode([default]))[0])
        default_at = -1 if apart else compared.index(default)
        against = _against_default(draws[:, at] - draws[:, default_at], weight, seconds)
    return Advice(
        recommended=recommended,
        prefer=prefer,
        best=preferred(rows, "best", sign),
        fastest=preferred(rows, "fastest", sign),
        complete=bool(complete),
        by_batch_size=rows,
        tolerance=margin,
        tolerance_is=why,
        as_good=[row.batch_size for row in rows if row is recommended or row.chance_within >= SURE],
        undecided=_undecided(rows, at, ahead, weight, run_sd, alike),
        run_sd=run_sd,
        against_default=against,
    )


def _configurations(
    space: SearchSpace, chosen: Trial, candidates: Sequence[Trial], sizes: Sequence[int]
) -> tuple[list[dict[str, Any]], list[int]]:
    """What is compared, by batch size: the grid of rates, with the extra dimensions of one trial, and what was trained.

    Returns:
        The configurations, and the number of the trial of each; -1 where there is none.
    """
    rates = space.grid_learning_rates(RATES).tolist()
    configurations: list[dict[str, Any]] = []
    numbers: list[int] = []
    for size in sizes:
        configurations += [{**chosen.extra, BATCH_SIZE: size, LEARNING_RATE: rate} for rate in rates]
        same = [trial for trial in candidates if trial.batch_size == size]
        configurations += [trial.params for trial in same]
        numbers += [*[-1] * len(rates), *(trial.trial for trial in same)]
    return configurations, numbers


def _runs_alike(points: FloatArray, trained: FloatArray) -> list[int]:
    """Runs that tell of each configuration, at least 1: what it may have for itself is the less, the more they are."""
    return [max(int(runs), 1) for runs in (np.abs(points[:, None] - trained).max(axis=2) < ALIKE).sum(axis=1)]


def _estimate(
    params: Mapping[str, Any],
    levels: FloatArray,
    *,
    epochs: float,
    seconds_per_epoch: float,
    runs: int,
    trial: int,
    within: float,
) -> Estimate:
    """One configuration's row, from its values at `LEVELS` and the epochs that a run of it takes."""
    low, lower, mean, upper, high = levels.tolist()
    return Estimate(
        batch_size=params[BATCH_SIZE],
        learning_rate=params[LEARNING_RATE],
        extra={name: value for name, value in params.items() if name not in (BATCH_SIZE, LEARNING_RATE)},
        mean=mean,
        low=low,
        high=high,
        standard_error=(upper - lower) / 2,
        chance_within=within,
        chance_better=0.5,
        seconds=seconds_per_epoch * epochs,
        epochs=epochs,
        runs=runs,
        trial=trial,
    )


def _undecided(
    rows: Sequence[Estimate], at: int, ahead: FloatArray, weight: FloatArray, run_sd: float, alike: Sequence[int]
) -> list[Undecided]:
    """What may well be better than the recommended row `at`, from joint draws of how far each row is ahead of it."""
    undecided = []
    for other, (row, gap) in enumerate(zip(rows, ahead.T, strict=True)):
        if other != at and row.chance_better > MAY_BE_BETTER:
            middle = float(weight @ gap)
            error = float(np.sqrt(weight @ (gap - middle) ** 2))
            count = runs_to_tell(middle, error, run_sd, own=OWN, runs=(alike[other], alike[at]))
            seconds = None if count is None else count * (row.seconds + rows[at].seconds)
            undecided.append(Undecided(row.batch_size, row.chance_better, count, seconds))
    return undecided


def _others(space: SearchSpace, chosen: Trial, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """A coarse grid of what else may be best, with the extra dimensions of one trial."""
    rates = space.grid_learning_rates(COARSE_RATES).tolist()
    places = np.linspace(0, len(sizes) - 1, min(len(sizes), COARSE_SIZES)).round().astype(int)
    return [{**chosen.extra, BATCH_SIZE: sizes[at], LEARNING_RATE: rate} for at in places for rate in rates]


def _chances_within(surrogate: Surrogate, points: FloatArray, others: FloatArray, margin: float) -> list[float]:
    """How likely each configuration loses no more than the margin against the best of all of them, and of others."""
    own = np.repeat([JOINT_OWN, 0.0], [len(points), len(others)])
    draws, weight = _drawn(surrogate, np.concatenate([points, others]), own)
    within = weight @ (draws.max(axis=1, keepdims=True) - draws[:, : len(points)] <= margin)
    return [float(chance) for chance in within]


def _chance_above(gap: FloatArray, weight: FloatArray) -> float:
    """How likely a difference is above 0, from its draws; what is equal counts by half."""
    return float(weight @ ((gap > 0) + 0.5 * (gap == 0)))


def advised_sizes(space: SearchSpace, seen: Sequence[Trial]) -> list[int]:
    """The batch sizes of the table: the ladder; of a whole integer range its powers of two, and those trained."""
    if isinstance(space.batch_size, list):
        return list(space.batch_size)
    return sorted({*powers_of_two(space.smallest, space.largest), *(trial.batch_size for trial in seen)})


def _drawn(surrogate: Surrogate, points: FloatArray, own: float | FloatArray) -> tuple[FloatArray, FloatArray]:
    """What configurations are worth, drawn together, so that what they have in common is in all of them.

    Returns:
        Draws in the units of the values, larger is better, the same ones at each call, shape (draws, configurations),
        and their weights, which add up to 1.
    """
    mean, covariance = surrogate.joint_at_end(points, own=own)
    # Not Cholesky's factor: configurations beside each other are as good as one.
    variance, axes = np.linalg.eigh(covariance)
    factor = axes * np.sqrt(np.maximum(variance, 0.0))[:, None, :]
    each = max(DRAWS // len(mean), 10)
    normal = np.random.default_rng(0).standard_normal((len(mean), each, len(points)))
    drawn = (mean[:, None] + normal @ factor.transpose(0, 2, 1)).reshape(len(mean), -1)
    return surrogate.unwarped(drawn).reshape(-1, len(points)), np.repeat(surrogate.weight / each, each)


def _tolerance(asked: float | None, run_sd: float, least: float) -> tuple[float, ToleranceIs]:
    if asked is not None:
        return asked, "asked"
    # What two runs differ by has twice the variance of one.
    differ = math.sqrt(2) * run_sd
    return (differ, "runs") if differ >= least else (least, "range")


def _best_rates(
    configurations: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    values: FloatArray,
    sign: float,
    nearly: float,
) -> list[int]:
    """Of each batch size the configuration that is best at one standard error down.

    What nobody tried may be anything, and that is no reason to advise it; so one that was trained is taken where none
    is better by more than `nearly`.

    Args:
        configurations: in the order of their batch sizes.
        numbers: of the trials that trained them; -1 where none did.
        values: at `LEVELS`, ascending, shape (levels, configurations).
        sign: 1 where larger values are better, -1 where smaller ones are.
        nearly: in the units of the values.

    Returns:
        The places of those chosen, by batch size.
    """
    sure = sign * values[2] - (values[3] - values[1]) / 2
    sure = np.where(np.array(numbers) >= 0, sure + nearly, sure)
    best: dict[int, int] = {}
    for at, configuration in enumerate(configurations):
        size = configuration[BATCH_SIZE]
        if size not in best or sure[at] > sure[best[size]]:
            best[size] = at
    return list(best.values())


def _against_default(ahead: FloatArray, weight: FloatArray, seconds: float) -> AgainstDefault:
    """From joint draws of how far the recommended configuration is ahead, shape (draws,)."""
    order = ahead.argsort()
    below = weight[order].cumsum()
    low, middle, high = ahead[order[np.searchsorted(below, LEVELS[::2]).clip(max=len(order) - 1)]].tolist()
    chance = _chance_above(ahead, weight)
    return AgainstDefault(COMMON_BATCH_SIZE, KERAS_LEARNING_RATE, chance, middle, low, high, seconds)
