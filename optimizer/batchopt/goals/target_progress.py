"""Trials on their way to a target, as the scheduler and the report see them for the goal `time`.

A trial that reached the target is one exact point, -log seconds, at full fidelity. One that was trained for e epochs
and did not is right-censored: its truth is at most -log(e * seconds per epoch). One that is paused has no such bound
until it is given up or has taken longer than the best: put at its mean, as `surrogate.py` does, the bound would look
like an observation of a trial that is still undecided.

What a curve says on its way is a point too: the time that it would take if the error, what is missing to the best that
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
"""Two times that differ by less than this part are alike: timings differ by some per cent."""

LONGEST_LOG_S = 25.0
"""Two thousand years: where nobody has been, the surrogate may expect anything."""


@dataclass(frozen=True)
class TargetProgress:
    """Trials on their way to a target.

    Attributes:
        target: of the validation metric.
        seconds_per_epoch: batch size -> seconds, on the machine whose seconds count.
        trials: in any state, with their curves of the metric.
        times: seconds to the target of those that reached it, by number.
        best_s: the least of them; infinite before the first.
    """

    target: Target
    seconds_per_epoch: Callable[[int], float]
    trials: Sequence[Trial]
    times: Mapping[int, float]
    best_s: float

    @classmethod
    def of(cls, trials: Sequence[Trial], target: Target, seconds_per_epoch: Callable[[int], float]) -> TargetProgress:
        """The progress as it stands."""
        times = {}
        for trial in trials:
            epochs = epochs_to_target(target, trial.curve) if trial.state != "infeasible" else None
            if epochs is not None:
                times[trial.trial] = epochs * seconds_per_epoch(trial.batch_size)
        return cls(target, seconds_per_epoch, trials, times, min(times.values(), default=math.inf))

    def spent_s(self, trial: Trial) -> float:
        """Seconds that a trial has been trained without reaching the target."""
        return trial.epochs * self.seconds_per_epoch(trial.batch_size)

    def hopeless(self, trial: Trial) -> bool:
        """Whether a paused trial has taken longer than the best one already."""
        return trial.state == "paused" and trial.trial not in self.times and self.spent_s(trial) >= self.best_s

    def until(self, trial: Trial, epoch: int) -> int:
        """Where a step ends that would end at `epoch`: no later than the trial has taken as long as the best one."""
        worth = self.best_s / self.seconds_per_epoch(trial.batch_size)
        return epoch if worth >= epoch else max(trial.epochs + 1, math.ceil(worth))

    def sooner(self, matters: float) -> str:
        """What a step would improve, given by how much of -log seconds it would matter: in seconds."""
        by = self.best_s * -math.expm1(-matters)
        return f"the least time to {self.target}, {self.best_s:.3g} s, by more than {by:.2g} s"

    def bounded(self, cost: Callable[[int], float], max_epochs: int) -> Callable[[int], float]:
        """Batch size -> seconds per epoch, such that no whole trial costs more than the best one took."""
        return lambda batch_size: min(cost(batch_size), self.best_s / max_epochs)

    def seen(self, max_epochs: int) -> list[Trial]:
        """The trials as a search for the highest value sees them.

        Once the target was reached, a value is -log seconds, and complete is who reached it. Before, it is the metric,
        turned round where less of it is better, and complete is who trained all epochs.
        """
        if not self.times:
            scored = [replace(trial, curve=self._scores(trial)) for trial in self.trials]
            return [
                replace(trial, state="complete") if trial.state == "stopped" and trial.epochs == max_epochs else trial
                for trial in scored
            ]
        return [self._seen(trial, max_epochs) for trial in self.trials]

    def _seen(self, trial: Trial, max_epochs: int) -> Trial:
        seconds = self.times.get(trial.trial)
        if seconds is not None:
            return replace(trial, state="complete", curve={max_epochs: (-math.log(seconds), 0.0)})
        # Nothing is known of its value but a bound, and a search looks for candidates around the highest values.
        curve = {epoch: (-math.inf, spent) for epoch, (_, spent) in trial.curve.items()}
        return replace(trial, curve=curve, state="stopped" if self.hopeless(trial) else trial.state)

    def curves(self, cube: Cube, max_epochs: int) -> Curves | None:
        """Points for the surrogate, values -log seconds; row i is trial i. None before the target was reached."""
        if not self.times:
            return None
        exact = [
            (row, 1.0, -math.log(self.times[trial.trial]))
            for row, trial in enumerate(self.trials)
            if trial.trial in self.times
        ]
        slowest, bounds = min(value for _, _, value in exact), []
        for row, trial in enumerate(self.trials):
            if trial.state != "infeasible":
                exact += [(row, share, -seen) for share, seen in self._on_the_way(trial, max_epochs)]
            if trial.reason in ("diverged", "untrainable"):
                bounds.append((row, 1.0, slowest))
            elif trial.trial not in self.times and trial.curve and (trial.state == "stopped" or self.hopeless(trial)):
                bounds.append((row, 1.0, -math.log(self.spent_s(trial))))
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
        """How near a trial was to the target at epochs before it, 1 being there, and log seconds to it from these."""
        found, score = [], self.target.metric.score
        bound, least = self._bound
        for epoch in sorted(marks(max_epochs) | {trial.epochs}):
            if epoch in trial.curve and not self.target.met(trial.curve[epoch][0]):
                value = min(score(trial.value_at(epoch, max_epochs)), score(self.target.value))
                missing = max((bound - value) / max(bound - score(self.target.value), least), 1.0)
                found.append((1.0 / missing, math.log(epoch * self.seconds_per_epoch(trial.batch_size) * missing)))
        return found


def advise_time(
    progress: TargetProgress, space: SearchSpace, *, max_epochs: int, max_batch_size: int | None = None
) -> Advice | None:
    """What follows for the time to the target: `advise`, its values in seconds.

    Args:
        progress: the trials.
        space: what may be used.
        max_epochs: of a whole trial.
        max_batch_size: what the machine that is advised holds, in examples; None for no limit.

    Returns:
        None where no trial reached the target. What is recommended is the soonest: there is nothing to trade.
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

    def seconds(log: float) -> float:
        return math.exp(min(log, LONGEST_LOG_S))

    def in_seconds(row: Estimate) -> Estimate:
        mean = seconds(row.mean)
        error = seconds(row.mean + row.standard_error) - mean
        low, high, epochs = seconds(row.low), seconds(row.high), mean / progress.seconds_per_epoch(row.batch_size)
        return replace(
            row, mean=mean, low=low, high=high, standard_error=error, seconds=mean, epochs=min(epochs, max_epochs)
        )

    rows = [in_seconds(row) for row in logs.by_batch_size]
    by_size = {row.batch_size: row for row in rows}
    recommended = by_size[logs.recommended.batch_size]
    reached = {trial.batch_size for trial in progress.trials if trial.trial in progress.times}
    undecided = [
        replace(row, seconds=None if row.runs is None else row.runs * (by_size[row.batch_size].mean + recommended.mean))
        for row in logs.undecided
    ]
    return replace(
        logs,
        recommended=recommended,
        best=by_size[logs.best.batch_size],
        fastest=recommended,
        by_batch_size=rows,
        as_good=[size for size in logs.as_good if size in reached or size == recommended.batch_size],
        tolerance=seconds(logs.recommended.mean + logs.tolerance) - recommended.mean,
        undecided=undecided,
        run_sd=seconds(logs.recommended.mean + logs.run_sd) - recommended.mean,
        against_default=_in_seconds(logs.against_default, recommended),
    )


def _in_seconds(against: AgainstDefault | None, recommended: Estimate) -> AgainstDefault | None:
    """What is gained over the default, whose logarithms were compared, in seconds."""
    if against is None:
        return None
    low, gain, high = (
        recommended.mean * math.expm1(min(log, LONGEST_LOG_S)) for log in (against.low, against.gain, against.high)
    )
    return replace(against, gain=gain, low=low, high=high, seconds=recommended.mean + gain)
