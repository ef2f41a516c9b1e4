"""How many epochs a run is expected to take, and what follows for what a step costs."""

from __future__ import annotations

import numpy as np
import pytest
from batchopt.goals.pareto import weighed
from batchopt.question.space import SearchSpace
from batchopt.search.run_lengths import RunLengths
from batchopt.search.scheduler import Scheduler
from batchopt.search.steps import Trial
from batchopt.search.surrogate.cube import Cube

SPACE = SearchSpace([16, 64, 256], (1e-4, 1e-1))
EPOCHS = 20


def whole(number: int, batch_size: int, epochs: int = EPOCHS, learning_rate: float = 0.01) -> Trial:
    """Trained to its end, or until it ended by itself; a second an epoch."""
    curve = {epoch: (0.5 + 0.01 * epoch, 1.0) for epoch in range(1, epochs + 1)}
    trial = Trial(number, batch_size, learning_rate, curve=curve, state="complete")
    trial.stay(EPOCHS)
    return trial


def lengths(trials: list[Trial], *configurations: tuple[int, float]) -> list[float]:
    cube = Cube(SPACE.distributions())
    points = cube.encode({"batch_size": size, "learning_rate": rate} for size, rate in configurations)
    return RunLengths(trials, cube, max_epochs=EPOCHS)(points).tolist()


def test_where_nothing_ends_by_itself_a_run_takes_all_epochs() -> None:
    assert lengths([], (16, 0.01)) == [EPOCHS]
    paused = Trial(1, 16, 0.01, curve={1: (0.5, 1.0)})
    assert lengths([whole(0, 64), paused], (16, 0.01), (256, 1e-4)) == [EPOCHS, EPOCHS]


def test_what_was_trained_takes_what_its_own_trials_took_and_the_rest_lies_between() -> None:
    trials = [whole(0, 16, 6), whole(1, 16, 8), whole(2, 256)]
    assert [trial.ended for trial in trials] == [6, 8, 0]
    assert lengths(trials, (16, 0.01), (256, 0.01)) == pytest.approx([7, EPOCHS])
    near, middle, far = lengths(trials, (16, 0.012), (64, 0.01), (256, 0.012))
    assert 7 < near < 7.1 and near < middle < far and EPOCHS - 0.1 < far < EPOCHS


def test_one_that_ends_by_itself_only_in_its_last_epoch_has_not_ended_early() -> None:
    assert whole(0, 16, EPOCHS).ended == 0


def test_a_step_costs_no_more_than_the_epochs_that_are_expected() -> None:
    search = Scheduler(SPACE, max_epochs=EPOCHS, seconds_per_epoch=lambda batch_size: 2.0, pause=False)
    for trial in (whole(0, 16, 4), whole(1, 64, 4), whole(2, 256, 4)):
        search.add(trial)
    step = search.next()
    assert step is not None and step.until_epoch == EPOCHS
    assert step.expected_seconds == pytest.approx(8.0)
    advice = search.advise()
    assert advice is not None
    assert [(row.epochs, row.seconds) for row in advice.by_batch_size] == [(pytest.approx(4.0), pytest.approx(8.0))] * 3


def test_what_time_is_weighed_by_is_the_time_that_a_run_takes() -> None:
    """Of two batch sizes whose epochs take as long, the one that stops itself after half of them is the faster."""
    trials = [whole(0, 16, 10), whole(1, 64), whole(2, 256, 19)]
    seconds = {16: 2.0, 64: 2.0, 256: 1.0}
    short, slow, fast = (
        trial.curve[EPOCHS][0] - before.curve[EPOCHS][0]
        for trial, before in zip(
            weighed(trials, SPACE, seconds.__getitem__, 1.0, max_epochs=EPOCHS), trials, strict=True
        )
    )
    assert slow < 0 and short == pytest.approx(fast, abs=0.01)
    assert np.isfinite([short, slow, fast]).all()
