"""How trials look to the search: as they are, where the highest value after all epochs is wanted.

A goal that wants something else has a view of its own, which inherits and changes what it has to (`batchopt/goals`).
A view is made once for a study; a standing is what it makes of the trials at one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchopt.question.goal import Prefer
from batchopt.question.space import SearchSpace
from batchopt.search.costs import EpochCost
from batchopt.search.steps import Trial, TrialState
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.curves import Curves
from batchopt.search.trials import observed

if TYPE_CHECKING:
    from batchopt.search.advice import Advice


class View:
    """The highest value after all epochs."""

    untold = "no value was told yet. Train at least one epoch."
    """Why there is nothing to recommend yet."""

    values = True
    """Whether the values are searched as they are, so that what a second gains may be told in them."""

    at_the_end: TrialState = "complete"
    """What a trial is after its last epoch where the goal was not met before."""

    def met(self, value: float) -> bool:
        """Whether a trial has all that the goal asks for after an epoch of this value, whatever epochs are left."""
        return False

    def shares(self, started: int) -> Sequence[float]:
        """How much time counts in the next decision, in 0 to 1, after so many trials.

        Where the first finds that nothing is worth a step, the next one is asked; after the last the study is over.
        """
        return [0.0]

    def standing(self, trials: Sequence[Trial], cost: EpochCost, *, max_epochs: int) -> Standing:
        """The trials, ascending, as they stand now; `cost` says what an epoch takes on this machine."""
        return Standing(trials, cost, max_epochs=max_epochs)


class Standing:
    """Trials at one moment, as they are.

    Args:
        trials: in any state, ascending.
        cost: batch size -> seconds per epoch on this machine.
        max_epochs: of a whole trial.
    """

    gains_value = True
    """Whether what a step gains is a difference of values, and may be told as one."""

    def __init__(self, trials: Sequence[Trial], cost: EpochCost, *, max_epochs: int) -> None:
        self.trials = trials
        self.cost = cost
        self.max_epochs = max_epochs

    def hopeless(self, trial: Trial) -> bool:
        """Whether a paused trial can no longer be the best, whatever its next epochs are."""
        return False

    def until(self, trial: Trial, epoch: int) -> int:
        """Where a step of a trial ends that would end at `epoch`."""
        return epoch

    def weighed(self, share: float, space: SearchSpace) -> list[Trial]:
        """The trials as the surrogate is to see them, where time counts so much."""
        return list(self.trials)

    def curves(self, trials: Sequence[Trial], cube: Cube, *, sign: float) -> Curves | None:
        """Points for the surrogate, row i of trial i; None before there is a value."""
        return observed(trials, cube, max_epochs=self.max_epochs, sign=sign)

    def improvement(self, matters: float) -> str:
        """What a step would have to improve to matter, given by how much of a value that is."""
        return f"the best value by more than {matters:.2g}"

    def advise(
        self, space: SearchSpace, *, sign: float, max_batch_size: int | None, prefer: Prefer = "balanced"
    ) -> Advice | None:
        """What follows for every batch size; None before there is a value."""
        from batchopt.search.advising import advise

        return advise(
            self.trials,
            space,
            max_epochs=self.max_epochs,
            sign=sign,
            seconds_per_epoch=self.cost,
            max_batch_size=max_batch_size,
            prefer=prefer,
        )
