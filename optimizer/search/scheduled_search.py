"""Our own search behind the seam: the scheduler decides, Optuna numbers the trials and keeps them."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import TrialState

from optimizer.search.optuna_search import FixedSampler, LadderSampler
from optimizer.search.scheduler import Scheduler
from optimizer.search.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from optimizer.search.steps import Infeasibility, Step
from optimizer.search.trials import Trial


class ScheduledSearch:
    """A study driven by a `Scheduler`.

    Args:
        study: asked for numbers; configurations that wait in it are trained first.
        space: what may be tried.
        scheduler: fresh.
        past: what the study holds already. A `paused` trial that is not at a rung was interrupted, and goes on first.
    """

    def __init__(self, study: Study, space: SearchSpace, scheduler: Scheduler, past: Iterable[Trial]) -> None:
        self.stop_reason = ""
        self._study = study
        self._space = space
        self._scheduler = scheduler
        self._known: set[int] = set()
        for trial in past:
            self._known.add(trial.trial)
            scheduler.add(trial)
        # For whatever a queued configuration leaves open.
        study.sampler = LadderSampler(RandomSampler(seed=len(self._known)), space)

    def next(self) -> Step | None:
        if self._scheduler.may_start and self._waiting():
            self._take_from_queue()
        step = self._scheduler.next()
        if step is None:
            self.stop_reason = self._scheduler.stop_reason
        elif step.trial not in self._known:
            return self._numbered(step)
        return step

    def tell(self, trial: int, epoch: int, value: float, seconds: float) -> None:
        self._scheduler.tell(trial, epoch, value, seconds)

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        self._scheduler.infeasible(trial, reason)

    def given_up(self) -> list[int]:
        return self._scheduler.given_up()

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _take_from_queue(self) -> None:
        """Make what a user, or another program, has put in the study's queue the scheduler's next step."""
        trial = self._study.ask(self._space.distributions())
        params = dict(trial.params)
        size, rate = params.pop(BATCH_SIZE), params.pop(LEARNING_RATE)
        self._known.add(trial.number)
        self._scheduler.add(Trial(trial.number, size, rate, params))

    def _numbered(self, step: Step) -> Step:
        """A new configuration as a trial of the study, under the number that Optuna gives it."""
        params = {BATCH_SIZE: step.batch_size, LEARNING_RATE: step.learning_rate, **step.extra}
        self._study.sampler = FixedSampler(params)
        number = self._study.ask(self._space.distributions()).number
        self._known.add(number)
        return self._scheduler.assign(step, number)
