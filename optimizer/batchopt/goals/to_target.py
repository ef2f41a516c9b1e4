"""Goals to a target: what costs least until the validation metric is there. What that costs, each of them says.

Trials, search and answer are the same for all of them; a goal of this kind is a file beside this one, which says what a
second of training costs, in which unit, and how that is said.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from batchopt.goals.crossing import epochs_to_target
from batchopt.goals.kind import Kind, Outcome, of_time
from batchopt.goals.target_progress import TargetProgress, advise_to_target
from batchopt.machine.energy import Power, Price
from batchopt.question.goal import Goal, Prefer
from batchopt.question.metric import Metric, Target
from batchopt.question.space import SearchSpace
from batchopt.search.costs import EpochCost
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.trials import observed
from batchopt.search.view import Standing, View
from batchopt.words import Unit, counted, shown_seconds

if TYPE_CHECKING:
    from batchopt.search.advice import Advice

NOT_REACHED = "target not reached"
"""What is said of a trial that was trained for all epochs in vain."""


class ToTargetKind(Kind):
    """The least of something to a target.

    Attributes:
        target: of the validation metric.
        least: what is wanted least, in a word or two.
        to_be_less, is_less: what it does where it takes less of that: `draw less`, `draws less`.
        less: that in a word, for whichever of two does.
    """

    prunes = False
    sees_scores = True
    directions = ("minimize",)

    least: str
    to_be_less: str
    is_less: str
    less: str

    def __init__(self, goal: Goal, metric: Metric) -> None:
        super().__init__(goal, metric)
        target = metric.target(goal.target)
        assert target is not None
        self.target = target

    @abstractmethod
    def shown(self, cost: float) -> str:
        """What it costs to get to the target, which may be very little, or very much."""

    @abstractmethod
    def shown_interval(self, low: float, high: float) -> str:
        """An interval of that, its unit once where it can be."""

    @abstractmethod
    def unit(self, largest: float) -> Unit:
        """The unit of a column of costs, of which this is the largest."""

    @abstractmethod
    def expected(self, cost: float, low: float, high: float, seconds: float) -> str:
        """What is expected to be needed until the target, the training time in it."""

    @abstractmethod
    def compared(self, cost: float, other: float, than: str = "") -> str:
        """What it costs beside something else, and what that is; empty where it is said elsewhere."""

    def heading(self, unit: Unit) -> str:
        """Of a column of costs."""
        return f"{unit.name} to {self.target}"

    def words(self) -> str:
        return f"{self.least} to {self.target} {self.metric.title} within {counted(self.goal.epochs, 'epoch')}"

    def reached(self, cost: float) -> str:
        """What is said of a trial that got there."""
        return f"target in {self.shown(cost)}"

    def view(self, seconds_per_epoch: Callable[[int], float] | None, power: Power) -> View:
        return ToTarget(self.target, seconds_per_epoch, self.price(power), least=self.least, shown=self.shown)

    def outcome(self, curve: Mapping[int, float], cost_per_epoch: float) -> Outcome:
        there = {epoch: (value, cost_per_epoch) for epoch, value in curve.items()}
        epochs = epochs_to_target(self.target, there)
        if epochs is None:
            score = self.metric.score
            spent = max(curve) * cost_per_epoch
            short_by = score(self.target.value) - max(map(score, curve.values()))
            return Outcome(None, spent, short_by, NOT_REACHED)
        cost = epochs * cost_per_epoch
        return Outcome((cost,), note=self.reached(cost), cost_to_target=cost)


class ToTarget(View):
    """Trials on their way to a target, the cheapest one first.

    Args:
        target: of the validation metric.
        seconds_per_epoch: batch size -> seconds, on the machine whose seconds count; None where it is this one.
        price: batch size -> what a second costs there; 1 where time itself is the cost.
        least, shown: what is wanted least, and how so much of it is said.
    """

    at_the_end = "stopped"

    values = False

    def __init__(
        self,
        target: Target,
        seconds_per_epoch: Callable[[int], float] | None = None,
        price: Price = of_time,
        *,
        least: str = "time",
        shown: Callable[[float], str] = shown_seconds,
    ) -> None:
        self.target = target
        self.untold = f"no trial reached {target} yet."
        self._seconds_per_epoch = seconds_per_epoch
        self._price = price
        self._least, self._shown = least, shown

    def met(self, value: float) -> bool:
        return self.target.met(value)

    def standing(self, trials: Sequence[Trial], cost: EpochCost, *, max_epochs: int) -> Standing:
        progress = TargetProgress.of(trials, self.target, self._seconds_per_epoch or cost, self._price)
        return _ProgressView(progress, cost, max_epochs=max_epochs, least=self._least, shown=self._shown)


class _ProgressView(Standing):
    def __init__(
        self, progress: TargetProgress, cost: EpochCost, *, max_epochs: int, least: str, shown: Callable[[float], str]
    ) -> None:
        bounded = EpochCost([], [], probed=progress.bounded(cost, max_epochs))
        super().__init__(progress.trials, bounded, max_epochs=max_epochs)
        self._progress = progress
        self._least, self._shown = least, shown
        # Towards a target nothing that is gained is a difference of values.
        self.gains_value = not progress.costs

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
        if not self._progress.costs:
            return super().improvement(matters)
        best = self._progress.best
        by = self._shown(best * -math.expm1(-matters))
        return f"the least {self._least} to {self._progress.target}, {self._shown(best)}, by more than {by}"

    def advise(
        self, space: SearchSpace, *, sign: float, max_batch_size: int | None, prefer: Prefer = "balanced"
    ) -> Advice | None:
        return advise_to_target(self._progress, space, max_epochs=self.max_epochs, max_batch_size=max_batch_size)
