"""Whether a trial that cannot be paused is worth its remaining epochs: what is stopped never goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from batchopt.question.space import SearchSpace
from batchopt.search.choices import Choices
from batchopt.search.costs import EpochCost
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.threads import on_one_thread
from batchopt.search.trials import observed, rungs

HOPELESS = 0.05
"""It is stopped where it is not likelier than this to end above the best by anything that matters. A paused trial waits
for as long as another one promises more; one that is stopped saves the rest of its epochs and loses what it had."""

FROM_COMPLETE = 4
"""Nothing is stopped before so many trials were trained to their end: how curves end must have been seen."""

WHOLE_ONE_IN = 4
"""One trial in so many is trained to its end whatever it promises, against early values that are believed too much."""


def may_stop(epoch: int, max_epochs: int) -> bool:
    """Whether a trial may be stopped after this epoch: at the rungs where others are paused."""
    return epoch in rungs(max_epochs)[:-1]


@on_one_thread
def is_hopeless(trials: Sequence[Trial], number: int, space: SearchSpace, *, max_epochs: int, sign: float) -> bool:
    """Whether a trial is not worth its remaining epochs; none is where `may_stop` says that it may not be stopped.

    Args:
        trials: all of a study, ascending.
        number: of one of them, under way.
        space: what may be tried.
        max_epochs: of a whole trial.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """
    asked = next(trial for trial in trials if trial.trial == number)
    complete = sum(trial.state == "complete" for trial in trials)
    if not may_stop(asked.epochs, max_epochs) or complete < FROM_COMPLETE or number % WHOLE_ONE_IN == 0:
        return False
    # As if it were paused here, and all others that are not over were under way.
    seen = [
        replace(trial, state="paused")
        if trial is asked
        else replace(trial, state="running", until_epoch=max_epochs)
        if trial.state in ("running", "paused")
        else trial
        for trial in trials
    ]
    cube = Cube(space.distributions())
    curves = observed(seen, cube, max_epochs=max_epochs, sign=sign)
    assert curves is not None
    # It saves its own epochs, whatever they cost; and it is lost, so that this study alone may speak against it.
    cost, ends = EpochCost([1], [1.0]), rungs(max_epochs)
    choices = Choices(seen, curves, space, cube, rungs=ends, sign=sign, cost=cost, fitted=False)
    return choices.paused[0].hope <= HOPELESS
