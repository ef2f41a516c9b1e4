"""The scheduler behind the seam: Optuna numbers and keeps the trials, and a study that was cut goes on as it would."""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
import pytest
from batchopt.question.space import SearchSpace, powers_of_two
from batchopt.search.in_optuna.our_search import ScheduledSearch
from batchopt.search.scheduler import Scheduler
from batchopt.search.steps import Trial
from batchopt.search.trials import rungs
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState

SPACE = SearchSpace(powers_of_two(8, 1024), (1e-4, 1e-1))
EPOCHS = 8


def accuracy(batch_size: int, learning_rate: float, epoch: int) -> float:
    """A ridge in the logarithms, climbed faster by small batches."""
    ridge = math.log10(learning_rate / 3e-3) - 0.5 * math.log10(batch_size / 64)
    final = 0.95 - 0.1 * ridge**2 - 0.01 * math.log2(batch_size / 64) ** 2 / 4
    return final - 0.4 * math.exp(-8 * epoch / EPOCHS)


class Driver:
    """Trains what a search hands out, as the loop does, and remembers what the scheduler must be told again."""

    def __init__(self, trials: int) -> None:
        self.study = optuna.create_study(direction="maximize")
        self.trials = trials
        self.curves: dict[int, dict[int, tuple[float, float]]] = {}
        self.search = self.fresh([])

    def fresh(self, past: Sequence[Trial]) -> ScheduledSearch:
        scheduler = Scheduler(SPACE, max_epochs=EPOCHS, seed=5, max_trials=self.trials, until=False)
        return ScheduledSearch(self.study, SPACE, scheduler, past)

    def step(self, epochs: int | None = None) -> bool:
        """Take one step, or only so many epochs of it; False where there is none."""
        step = self.search.next()
        if step is None:
            return False
        trial = self._optuna(step.trial)
        last = step.until_epoch if epochs is None else min(step.until_epoch, step.from_epoch + epochs)
        for epoch in range(step.from_epoch + 1, last + 1):
            value = accuracy(step.batch_size, step.learning_rate, epoch)
            trial.report(value, epoch)
            self.curves.setdefault(step.trial, {})[epoch] = (value, 1.0)
            self.search.tell(step.trial, epoch, value, 1.0)
            if epoch == EPOCHS:
                self.study.tell(step.trial, value)
        self.give_up()
        return True

    def give_up(self) -> None:
        for number in self.search.given_up():
            self.study.tell(number, state=TrialState.PRUNED)

    def restart(self) -> None:
        """Forget everything but what a database holds."""
        states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}
        past = [
            Trial(
                trial.number,
                trial.params["batch_size"],
                trial.params["learning_rate"],
                curve=dict(self.curves.get(trial.number, {})),
                state=states.get(trial.state, "paused"),  # type: ignore[arg-type]
            )
            for trial in self.study.trials
            if trial.state != TrialState.WAITING
        ]
        self.search = self.fresh(past)

    def _optuna(self, number: int) -> OptunaTrial:
        return OptunaTrial(self.study, self.study.trials[number]._trial_id)

    def history(self) -> list[tuple[dict[str, float], str, int]]:
        return [(trial.params, trial.state.name, len(trial.intermediate_values)) for trial in self.study.trials]


def finished(driver: Driver) -> Driver:
    while driver.step():
        pass
    driver.give_up()
    return driver


def test_a_study_ends_with_every_trial_complete_or_pruned_and_the_best_complete() -> None:
    study = finished(driver := Driver(trials=8)).study
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(study.trials) == 8
    assert study.best_trial.state == TrialState.COMPLETE
    assert all(trial.params["batch_size"] in SPACE.batch_size for trial in study.trials)
    assert all(len(t.intermediate_values) in rungs(EPOCHS) for t in study.trials)
    assert driver.search.stop_reason


def test_a_study_that_was_cut_and_rebuilt_is_the_study_that_was_not() -> None:
    """Cut between steps and in the middle of a step, again and again."""
    whole = finished(Driver(trials=6))
    cut = Driver(trials=6)
    for taken in range(200):
        in_the_middle = taken % 3 == 1
        if not cut.step(epochs=1 if in_the_middle else None):
            break
        if in_the_middle or taken % 2:
            cut.restart()
    cut.give_up()
    assert cut.history() == whole.history()


def test_what_waits_in_the_study_is_trained_first_and_what_it_leaves_open_is_filled() -> None:
    driver = Driver(trials=4)
    driver.study.enqueue_trial({"batch_size": 512, "learning_rate": 0.05})
    driver.study.enqueue_trial({"batch_size": 16})
    finished(driver)
    first, second = driver.study.trials[:2]
    assert first.params == {"batch_size": 512, "learning_rate": 0.05}
    assert second.params["batch_size"] == 16
    assert 1e-4 <= second.params["learning_rate"] <= 1e-1
    assert len(driver.study.trials) == 4


def test_trials_get_the_numbers_that_optuna_gives_them() -> None:
    """Another process took number 0 in the meantime."""
    driver = Driver(trials=4)
    other = driver.study.ask(SPACE.distributions())
    step = driver.search.next()
    assert step is not None
    assert step.trial == other.number + 1
    assert driver.study.trials[step.trial].params == {
        "batch_size": step.batch_size,
        "learning_rate": step.learning_rate,
    }
    driver.search.tell(step.trial, 1, 0.5, 1.0)


@pytest.mark.parametrize("reason", ["diverged", "memory", "failed"])
def test_an_infeasible_trial_is_not_continued(reason: str) -> None:
    driver = Driver(trials=3)
    step = driver.search.next()
    assert step is not None
    driver.search.infeasible(step.trial, reason)  # type: ignore[arg-type]
    driver.study.tell(step.trial, state=TrialState.PRUNED)
    while (later := driver.search.next()) is not None:
        assert later.trial != step.trial
        if reason == "memory":
            assert later.batch_size < step.batch_size
        for epoch in range(later.from_epoch + 1, later.until_epoch + 1):
            driver.search.tell(later.trial, epoch, accuracy(later.batch_size, later.learning_rate, epoch), 1.0)


def test_of_a_window_the_newest_trials_alone_count() -> None:
    past = [Trial(n, 8 << n, 1e-3, curve={EPOCHS: (1 - n / 10, 1.0)}, state="complete") for n in range(6)]

    def best(trials: Sequence[Trial], window: int | None) -> int:
        scheduler = Scheduler(SPACE, max_epochs=EPOCHS)
        search = ScheduledSearch(optuna.create_study(direction="maximize"), SPACE, scheduler, trials, window=window)
        # Told again, as after a look at the database.
        for trial in trials:
            search.learn(trial)
        return scheduler.recommend("best").batch_size

    assert (best(past, None), best(past, 3), best(past[3:], None)) == (8, 64, 64)
