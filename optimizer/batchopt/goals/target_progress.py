"""Trials on their way to a target, as the scheduler and the report see them for goals such as `time`.

What it takes to get there is a cost: seconds, or joules, each epoch so many at its batch size. A trial that reached the
target is one exact point, -log cost, at full fidelity. One that was trained for e epochs
and did not is right-censored: its truth is at most -log(e * cost per epoch). One that is paused has no such bound
until it is given up or has cost more than the best: put at its mean, as `surrogate.py` does, the bound would look
like an observation of a trial that is still undecided.

What a curve says on its way is a point too: the cost that it would take if the error, what is missing to the best that
the metric can be, went with 1 / epochs. Its fidelity is the target's error over the curve's, 1 at the target. Then the
surrogate's trend is linear in the logarithm of what is missing, and learns with which power of the epochs the errors
really go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from batchopt.goals.crossing import epochs_to_target
from batchopt.goals.kind import of_time
from batchopt.machine.energy import Price
from batchopt.question.metric import Target
from batchopt.search.steps import Trial
from batchopt.search.surrogate.curves import Curves
from batchopt.search.trials import marks

if TYPE_CHECKING:
    from batchopt.question.space import SearchSpace
    from batchopt.search.advice import Advice, AgainstDefault, Estimate
    from batchopt.search.surrogate.cube import Cube


LEAST_ERROR = 1e-3
"""What is missing at a target that is the best that the metric can be, or nearly: of 1, or of the median error."""

BOUNDS = (0.0, 1.0)
"""Scores that a metric does not pass: errors, turned round, are at most 0; accuracy, AUC and R2 are at most 1."""

SOONER = 0.05
"""Two costs that differ by less than this part are alike: timings differ by some per cent, and so do watts."""

HIGHEST_LOG = 25.0
"""Two thousand years, of seconds: where nobody has been, the surrogate may expect anything."""


@dataclass(frozen=True)
class TargetProgress:
    """Trials on their way to a target.

    Attributes:
        target: of the validation metric.
        seconds_per_epoch: batch size -> seconds, on the machine whose epochs count.
        price: batch size -> what a second costs there.
        trials: in any state, with their curves of the metric.
        costs: to the target, of those that reached it, by number.
        best: the least of them; infinite before the first.
    """

    target: Target
    seconds_per_epoch: Callable[[int], float]
    price: Price
    trials: Sequence[Trial]
    costs: Mapping[int, float]
    best: float

    @classmethod
    def of(
        cls,
        trials: Sequence[Trial],
        target: Target,
        seconds_per_epoch: Callable[[int], float],
        price: Price = of_time,
    ) -> TargetProgress:
        """The progress as it stands."""
        costs = {}
        for trial in trials:
            epochs = epochs_to_target(target, trial.curve) if trial.state != "infeasible" else None
            if epochs is not None:
                costs[trial.trial] = epochs * seconds_per_epoch(trial.batch_size) * price(trial.batch_size)
        return cls(target, seconds_per_epoch, price, trials, costs, min(costs.values(), default=math.inf))

    def per_epoch(self, batch_size: int) -> float:
        """What an epoch costs."""
        return self.seconds_per_epoch(batch_size) * self.price(batch_size)

    def spent(self, trial: Trial) -> float:
        """What a trial has cost that has not reached the target."""
        return trial.epochs * self.per_epoch(trial.batch_size)

    def hopeless(self, trial: Trial) -> bool:
        """Whether a paused trial has cost more than the best one already."""
        return trial.state == "paused" and trial.trial not in self.costs and self.spent(trial) >= self.best

    def until(self, trial: Trial, epoch: int) -> int:
        """Where a step ends that would end at `epoch`: no later than the trial has cost as much as the best one."""
        worth = self.best / self.per_epoch(trial.batch_size)
        return epoch if worth >= epoch else max(trial.epochs + 1, math.ceil(worth))

    def bounded(self, cost: Callable[[int], float], max_epochs: int) -> Callable[[int], float]:
        """Batch size -> seconds per epoch, such that no whole trial takes longer than to cost as much as the best."""
        return lambda size: cost(size) * min(1.0, self.best / (max_epochs * self.per_epoch(size)))

    def seen(self, max_epochs: int) -> list[Trial]:
        """The trials as a search for the highest value sees them.

        Once the target was reached, a value is -log cost, and complete is who reached it. Before, it is the metric,
        turned round where less of it is better, and complete is who trained all epochs.
        """
        if not self.costs:
            scored = [replace(trial, curve=self._scores(trial)) for trial in self.trials]
            return [
                replace(trial, state="complete") if trial.state == "stopped" and trial.epochs == max_epochs else trial
                for trial in scored
            ]
        return [self._seen(trial, max_epochs) for trial in self.trials]

    def _seen(self, trial: Trial, max_epochs: int) -> Trial:
        cost = self.costs.get(trial.trial)
        if cost is not None:
            return replace(trial, state="complete", curve={max_epochs: (-math.log(cost), 0.0)})
        # Nothing is known of its value but a bound, and a search looks for candidates around the highest values.
        curve = {epoch: (-math.inf, spent) for epoch, (_, spent) in trial.curve.items()}
        return replace(trial, curve=curve, state="stopped" if self.hopeless(trial) else trial.state)

    def curves(self, cube: Cube, max_epochs: int) -> Curves | None:
        """Points for the surrogate, values -log cost; row i is trial i. None before the target was reached."""
        if not self.costs:
            return None
        exact = [
            (row, 1.0, -math.log(self.costs[trial.trial]))
            for row, trial in enumerate(self.trials)
            if trial.trial in self.costs
        ]
        slowest, bounds = min(value for _, _, value in exact), []
        for row, trial in enumerate(self.trials):
            if trial.state != "infeasible":
                exact += [(row, share, -seen) for share, seen in self._on_the_way(trial, max_epochs)]
            if trial.reason in ("diverged", "untrainable"):
                bounds.append((row, 1.0, slowest))
            elif trial.trial not in self.costs and trial.curve and (trial.state == "stopped" or self.hopeless(trial)):
                bounds.append((row, 1.0, -math.log(self.spent(trial))))
        points = exact + bounds
        pending = [(row, t.until_epoch / max_epochs) for row, t in enumerate(self.trials) if t.state == "running"]
        return Curves(
            x=cube.encode(trial.params for trial in self.trials),
            trial=np.array([row for row, _, _ in points], dtype=np.int64),
            fidelity=np.array([share for _, share, _ in points]),
            value=np.array([value for _, _, value in points]),
            censored=np.arange(len(points)) >= len(exact),
            pending_trial=np.array([row for row, _ in pending], dtype=np.int64),
            pending_fidelity=np.array([share for _, share in pending]),
        )

    def _scores(self, trial: Trial) -> dict[int, tuple[float, float]]:
        return {epoch: (self.target.metric.score(value), spent) for epoch, (value, spent) in trial.curve.items()}

    @cached_property
    def _bound(self) -> tuple[float, float]:
        """The score that nobody passes, and the least that counts as missing to it.

        A metric without such a bound is taken to have it beyond the target, as far as half of all values are before it.
        """
        target = self.target.metric.score(self.target.value)
        scores = [score for trial in self.trials for score, _ in self._scores(trial).values() if math.isfinite(score)]
        bound = next((bound for bound in BOUNDS if max([target, *scores]) <= bound), None)
        if bound == 1.0:
            return bound, LEAST_ERROR
        middle = float(np.median(scores)) if scores else target
        bound = target + abs(target - middle) if bound is None else bound
        return bound, LEAST_ERROR * (bound - middle) or LEAST_ERROR

    def _on_the_way(self, trial: Trial, max_epochs: int) -> list[tuple[float, float]]:
        """How near a trial was to the target at epochs before it, 1 being there, and log cost to it from these."""
        found, score = [], self.target.metric.score
        bound, least = self._bound
        for epoch in sorted(marks(max_epochs) | {trial.epochs}):
            if epoch in trial.curve and not self.target.met(trial.curve[epoch][0]):
                value = min(score(trial.value_at(epoch, max_epochs)), score(self.target.value))
                missing = max((bound - value) / max(bound - score(self.target.value), least), 1.0)
                found.append((1.0 / missing, math.log(epoch * self.per_epoch(trial.batch_size) * missing)))
        return found


def advise_to_target(
    progress: TargetProgress, space: SearchSpace, *, max_epochs: int, max_batch_size: int | None = None
) -> Advice | None:
    """What follows for the cost to the target: `advise`, its values in the goal's unit.

    Args:
        progress: the trials.
        space: what may be used.
        max_epochs: of a whole trial.
        max_batch_size: what the machine that is advised holds, in examples; None for no limit.

    Returns:
        None where no trial reached the target. What is recommended is the cheapest: there is nothing to trade.
    """
    # The numerics take a second to load, and whoever looks for a crossing alone has no use for them.
    from batchopt.search.advising import advise
    from batchopt.search.surrogate.cube import Cube

    curves = progress.curves(Cube(space.distributions()), max_epochs)
    if curves is None:
        return None
    logs = advise(
        progress.seen(max_epochs),
        space,
        max_epochs=max_epochs,
        sign=-1.0,
        # What it takes is the value itself.
        seconds_per_epoch=lambda batch_size: 1.0,
        max_batch_size=max_batch_size,
        curves=curves,
        prefer="best",
        matters=math.log1p(SOONER),
    )
    if logs is None or not logs.complete:
        return None

    def cost(log: float) -> float:
        return math.exp(min(log, HIGHEST_LOG))

    def as_cost(row: Estimate) -> Estimate:
        mean, size = cost(row.mean), row.batch_size
        return replace(
            row,
            mean=mean,
            low=cost(row.low),
            high=cost(row.high),
            standard_error=cost(row.mean + row.standard_error) - mean,
            seconds=mean / progress.price(size),
            epochs=min(mean / progress.per_epoch(size), max_epochs),
        )

    rows = [as_cost(row) for row in logs.by_batch_size]
    by_size = {row.batch_size: row for row in rows}
    recommended = by_size[logs.recommended.batch_size]
    reached = {trial.batch_size for trial in progress.trials if trial.trial in progress.costs}
    undecided = [
        replace(
            row,
            seconds=None if row.runs is None else row.runs * (by_size[row.batch_size].seconds + recommended.seconds),
        )
        for row in logs.undecided
    ]
    return replace(
        logs,
        recommended=recommended,
        best=by_size[logs.best.batch_size],
        fastest=recommended,
        by_batch_size=rows,
        as_good=[size for size in logs.as_good if size in reached or size == recommended.batch_size],
        tolerance=cost(logs.recommended.mean + logs.tolerance) - recommended.mean,
        undecided=undecided,
        run_sd=cost(logs.recommended.mean + logs.run_sd) - recommended.mean,
        against_default=_as_cost(logs.against_default, recommended, progress),
    )


def _as_cost(against: AgainstDefault | None, recommended: Estimate, progress: TargetProgress) -> AgainstDefault | None:
    """What is gained over the default, whose logarithms were compared, in the goal's unit."""
    if against is None:
        return None
    low, gain, high = (
        recommended.mean * math.expm1(min(log, HIGHEST_LOG)) for log in (against.low, against.gain, against.high)
    )
    seconds = (recommended.mean + gain) / progress.price(against.batch_size)
    return replace(against, gain=gain, low=low, high=high, seconds=seconds)
