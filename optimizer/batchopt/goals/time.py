"""The goal `time`: the least training time until the validation metric is at a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from batchopt.goals.crossing import epochs_to_target
from batchopt.goals.kind import Kind, Outcome
from batchopt.goals.target_progress import TargetProgress, advise_time
from batchopt.question.goal import Goal, Prefer
from batchopt.question.metric import Metric, Target
from batchopt.question.space import SearchSpace
from batchopt.search.costs import EpochCost
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.trials import observed
from batchopt.search.view import Standing, View
from batchopt.words import counted

if TYPE_CHECKING:
    from batchopt.search.advice import Advice

NOT_REACHED = "target not reached"
"""What is said of a trial that was trained for all epochs in vain."""


class Time(Kind):
    """The least training time to a target."""

    in_seconds = True
    prunes = False
    sees_scores = True
    directions = ("minimize",)
    value_names = ("seconds_to_target",)

    def __init__(self, goal: Goal, metric: Metric) -> None:
        super().__init__(goal, metric)
        target = metric.target(goal.target)
        assert target is not None
        self.target = target

    def words(self) -> str:
        return f"time to {self.target} {self.metric.title} within {counted(self.goal.epochs, 'epoch')}"

    def view(self, seconds_per_epoch: Callable[[int], float] | None) -> View:
        return ToTarget(self.target, seconds_per_epoch)

    def outcome(self, curve: Mapping[int, float], seconds_per_epoch: float) -> Outcome:
        timed = {epoch: (value, seconds_per_epoch) for epoch, value in curve.items()}
        epochs = epochs_to_target(self.target, timed)
        if epochs is None:
            score = self.metric.score
            spent = max(curve) * seconds_per_epoch
            short_by = score(self.target.value) - max(map(score, curve.values()))
            return Outcome(None, spent, short_by, NOT_REACHED)
        seconds = epochs * seconds_per_epoch
        return Outcome((seconds,), note=f"target in {seconds:.2f} s", seconds_to_target=seconds)


class ToTarget(View):
    """Trials on their way to a target, the soonest one first.

    Args:
        target: of the validation metric.
        seconds_per_epoch: batch size -> seconds, on the machine whose seconds count; None where it is this one.
    """

    at_the_end = "stopped"

    values = False

    def __init__(self, target: Target, seconds_per_epoch: Callable[[int], float] | None = None) -> None:
        self.target = target
        self.untold = f"no trial reached {target} yet."
        self._seconds_per_epoch = seconds_per_epoch

    def met(self, value: float) -> bool:
        return self.target.met(value)

    def standing(self, trials: Sequence[Trial], cost: EpochCost, *, max_epochs: int) -> Standing:
        return _ProgressView(
            TargetProgress.of(trials, self.target, self._seconds_per_epoch or cost), cost, max_epochs=max_epochs
        )


class _ProgressView(Standing):
    def __init__(self, progress: TargetProgress, cost: EpochCost, *, max_epochs: int) -> None:
        bounded = EpochCost([], [], probed=progress.bounded(cost, max_epochs))
        super().__init__(progress.trials, bounded, max_epochs=max_epochs)
        self._progress = progress
        # Towards a target nothing that is gained is a difference of values.
        self.gains_value = not progress.times

    def hopeless(self, trial: Trial) -> bool:
        return self._progress.hopeless(trial)

    def until(self, trial: Trial, epoch: int) -> int:
        return self._progress.until(trial, epoch)

    def weighed(self, share: float, space: SearchSpace) -> list[Trial]:
        return self._progress.seen(self.max_epochs)

    def curves(self, trials: Sequence[Trial], cube: Cube, *, sign: float) -> Curves | None:
        # Before anyone got there, the metric itself is searched.
        towards = self._progress.curves(cube, self.max_epochs)
        return towards or observed(trials, cube, max_epochs=self.max_epochs, sign=sign)

    def improvement(self, matters: float) -> str:
        return self._progress.sooner(matters) if self._progress.times else super().improvement(matters)

    def advise(
        self, space: SearchSpace, *, sign: float, max_batch_size: int | None, prefer: Prefer = "balanced"
    ) -> Advice | None:
        return advise_time(self._progress, space, max_epochs=self.max_epochs, max_batch_size=max_batch_size)
