"""Our own search behind the interface: the scheduler decides, Optuna numbers the trials and keeps them."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from batchopt.optuna_private import storage_of, study_id_of
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE, SearchSpace
from batchopt.search.in_optuna.asking import finish_asking
from batchopt.search.in_optuna.ladder import LadderSampler
from batchopt.search.scheduler import Scheduler
from batchopt.search.steps import Infeasibility, Step, Trial


class ScheduledSearch:
    """A study driven by a `Scheduler`.

    Args:
        study: asked for numbers; configurations that wait in it are trained first.
        space: what may be tried.
        scheduler: fresh.
        past: what the study holds already. A `paused` trial that is not at a rung was interrupted, and goes on first.
        window: how many of the trials that have ended count, the newest; all where None.
    """

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        scheduler: Scheduler,
        past: Iterable[Trial] = (),
        *,
        window: int | None = None,
    ) -> None:
        self.stop_reason = ""
        self._study = study
        self._space = space
        self._scheduler = scheduler
        self._known: set[int] = set()
        self._window = window
        self._ended: set[int] = set()
        self._past: set[int] = set()
        for trial in past:
            self.learn(trial)

    def next(self) -> Step | None:
        if self._scheduler.may_start and self._waiting():
            self._take_from_queue()
        step = self._scheduler.next()
        if step is None:
            self.stop_reason = self._scheduler.stop_reason
        elif step.trial not in self._known:
            return self._numbered(step)
        return step

    def tell(self, trial: int, epoch: int, value: float, seconds: float, *, over: bool = False) -> None:
        self._scheduler.tell(trial, epoch, value, seconds, over=over)
        if over:
            self._has_ended(trial)

    def learn(self, trial: Trial) -> None:
        self._known.add(trial.trial)
        if trial.trial in self._past:
            return
        self._scheduler.add(trial)
        if trial.state not in ("running", "paused"):
            self._has_ended(trial.trial)

    def limit(self, batch_size: int | None) -> None:
        self._scheduler.max_batch_size = batch_size

    def finish_asking(self, trial: int) -> None:
        self._study.sampler = self._filling(trial)
        finish_asking(self._study, trial, self._space)

    def infeasible(self, trial: int, reason: Infeasibility) -> None:
        self._scheduler.infeasible(trial, reason)
        self._has_ended(trial)

    def given_up(self) -> list[int]:
        return self._scheduler.given_up()

    def _has_ended(self, trial: int) -> None:
        self._ended.add(trial)
        if self._window is not None and len(self._ended) > self._window:
            for past in sorted(self._ended)[: -self._window]:
                self._scheduler.forget(past)
                self._ended.remove(past)
                self._past.add(past)

    def _filling(self, number: int) -> LadderSampler:
        return LadderSampler(RandomSampler(seed=number), self._space)

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _take_from_queue(self) -> None:
        """Make what a user, or another program, has put in the study's queue the scheduler's next step."""
        # For whatever it leaves open.
        self._study.sampler = self._filling(len(self._known))
        trial = self._study.ask(self._space.distributions())
        params = dict(trial.params)
        size, rate = params.pop(BATCH_SIZE), params.pop(LEARNING_RATE)
        self._known.add(trial.number)
        self._scheduler.add(Trial(trial.number, size, rate, params))

    def _numbered(self, step: Step) -> Step:
        """A new configuration as a trial of the study, under the number that Optuna gives it.

        It is there with all its parameters or not at all; where nobody can tell whether it is, it is found again as
        a trial that nobody trains.
        """
        params = {BATCH_SIZE: step.batch_size, LEARNING_RATE: step.learning_rate, **step.extra}
        asked = create_trial(state=TrialState.RUNNING, params=params, distributions=self._space.distributions())
        storage = storage_of(self._study)
        try:
            # Not `add_trial`, which does not say which trial it has made: another program may add one just then.
            trial_id = storage.create_new_trial(study_id_of(self._study), template_trial=asked)
            number = storage.get_trial_number_from_id(trial_id)
        except BaseException:
            self._scheduler.forget(step.trial)
            raise
        self._known.add(number)
        return self._scheduler.assign(step, number)
