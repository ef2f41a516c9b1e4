"""Optuna's samplers and pruners behind the seam: what is tried, in which order, and when it is given up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest
from batchopt import SearchSpace
from batchopt.question.options import SEARCHES
from batchopt.search.in_optuna.their_searches import (
    PRUNER_STARTUP_TRIALS,
    PRUNER_WARMUP_EPOCHS,
    OptunaSearch,
    grid_axes,
)
from batchopt.search.steps import Step, Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

INSTALLED = [name for name in SEARCHES if name != "gp" or find_spec("torch")]
"""One needs PyTorch, which is no dependency of ours."""

LADDER = SearchSpace([8, 32, 512], (1e-4, 1e-1))
EPOCHS = 3


def search_of(study: optuna.Study, kind: str = "random", trials: int = 8, **changes: Any) -> OptunaSearch:
    options = {"seed": 5, "max_epochs": EPOCHS, "prune": False, "space": LADDER} | changes
    return OptunaSearch(
        study, options.pop("space"), search=kind, budget_left=lambda: len(started(study)) < trials, **options
    )


def started(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]


def curve(step: Step, epoch: int) -> float:
    """Best at a rate of 0.01; rises with the epochs."""
    return 1 - abs(math.log10(step.learning_rate / 0.01)) / 4 - 0.1 / epoch


def train(
    search: OptunaSearch, study: optuna.Study, step: Step, curve: Callable[[Step, int], float] = curve
) -> list[int]:
    """Train a step as the loop does; returns the trials given up."""
    trial = optuna.trial.Trial(study, study.trials[step.trial]._trial_id)
    for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
        value = curve(step, epoch)
        if epoch not in study.trials[step.trial].intermediate_values:
            trial.report(value, epoch)
        search.tell(step.trial, epoch, value, seconds=1.0)
        if epoch == EPOCHS:
            study.tell(step.trial, value)
    given_up = search.given_up()
    for number in given_up:
        study.tell(number, state=TrialState.PRUNED)
    return given_up


def run(search: OptunaSearch, study: optuna.Study) -> list[Step]:
    steps = []
    while (step := search.next()) is not None:
        steps.append(step)
        train(search, study, step)
    return steps


def new_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize")


@pytest.mark.parametrize("kind", INSTALLED)
def test_every_batch_size_proposed_is_on_the_ladder_and_stored_as_trained(kind: str) -> None:
    study = new_study()
    steps = run(search_of(study, kind, trials=20), study)
    assert len(steps) == 20
    assert {step.batch_size for step in steps} == {8, 32, 512}
    assert all(1e-4 <= step.learning_rate <= 1e-1 for step in steps)
    stored = [(trial.params["batch_size"], trial.params["learning_rate"]) for trial in study.trials]
    assert stored == [(step.batch_size, step.learning_rate) for step in steps if step.from_epoch == 0]


def test_the_grid_tries_every_cell_once_and_ends() -> None:
    space = SearchSpace([8, 32], (1e-3, 1e-1), {"optimizer": CategoricalDistribution(["adam", "sgd"])})
    study = new_study()
    search = search_of(study, "grid", trials=1000, space=space)
    steps = run(search, study)
    cells = [(step.batch_size, step.learning_rate, step.extra["optimizer"]) for step in steps]
    assert len(cells) == len(set(cells)) == 2 * 7 * 2
    assert search.stop_reason == "the grid is exhausted"


def test_a_grid_that_is_cut_short_still_covers_the_space() -> None:
    study = new_study()
    steps = run(search_of(study, "grid", trials=9), study)
    assert {step.batch_size for step in steps} == {8, 32, 512}
    assert min(step.learning_rate for step in steps) < 1e-3 < 1e-2 < max(step.learning_rate for step in steps)


def test_a_cell_of_the_grid_that_was_queued_is_not_tried_again() -> None:
    study = new_study()
    study.enqueue_trial({"batch_size": 32, "learning_rate": 0.1})
    cells = [(step.batch_size, step.learning_rate) for step in run(search_of(study, "grid", trials=1000), study)]
    assert cells[0] == (32, 0.1)
    assert len(cells) == len(set(cells)) == 3 * 7


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(0.0, 0.5),
        FloatDistribution(0.0, 0.5, step=0.1),
        FloatDistribution(1e-4, 1e-2, log=True),
        IntDistribution(1, 4),
        IntDistribution(1, 100, log=True),
        IntDistribution(32, 192, step=32),
        CategoricalDistribution(["adam", "sgd"]),
    ],
    ids=str,
)
def test_the_grid_of_an_extra_dimension_holds_only_values_it_allows(distribution: BaseDistribution) -> None:
    values = grid_axes(SearchSpace([8], extra={"extra": distribution}))["extra"]
    assert len(values) in (2, 3)
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)


@pytest.mark.parametrize("kind", INSTALLED)
def test_what_the_user_queued_is_tried_first_and_as_it_is(kind: str) -> None:
    study = new_study()
    wanted = [(512, 0.003), (8, 0.1)]
    for batch_size, learning_rate in wanted:
        study.enqueue_trial({"batch_size": batch_size, "learning_rate": learning_rate})
    steps = run(search_of(study, kind, trials=4), study)
    assert [(step.batch_size, step.learning_rate) for step in steps[:2]] == wanted
    assert [step.reason for step in steps] == ["queued", "queued", "new", "new"]


@pytest.mark.parametrize("kind", INSTALLED)
def test_a_resumed_search_proposes_what_an_uninterrupted_one_would(kind: str, tmp_path: Path) -> None:
    """Stopped after 12 of 16 trials, and loaded again from its database."""
    whole = new_study()
    expected = run(search_of(whole, kind, trials=16), whole)
    storage = f"sqlite:///{tmp_path / 'parts.db'}"
    first = optuna.create_study(storage=storage, study_name="parts", direction="maximize")
    steps = run(search_of(first, kind, trials=12), first)
    second = optuna.load_study(storage=storage, study_name="parts")
    steps += run(search_of(second, kind, trials=16), second)
    assert steps == expected


class Killed(Exception):
    """In the place of signal 9."""


@pytest.mark.parametrize("kind", [name for name in INSTALLED if name != "qmc"])
@pytest.mark.parametrize("queued", [{}, {"learning_rate": 0.02}])
def test_a_trial_that_was_asked_for_by_halves_is_finished_as_it_would_have_been(
    kind: str, queued: dict[str, float]
) -> None:
    """Killed before each of its parameters is written, early and where the sampler has learned; `qmc` skips a point."""
    space = SearchSpace([8, 32, 512], (1e-4, 1e-1), {"decay": FloatDistribution(0.1, 0.9)})
    for after, written in itertools.product((1, 12), range(3)):
        storage = optuna.storages.InMemoryStorage()
        whole, halved = (
            optuna.create_study(direction="maximize"),
            optuna.create_study(storage=storage, direction="maximize"),
        )
        for study in (whole, halved):
            run(search_of(study, kind, after, space=space), study)
            if queued:
                study.enqueue_trial(queued)
        search_of(whole, kind, after + 1, space=space).next()
        left, write = [written], storage.set_trial_param

        def killed(*arguments: Any, left: list[int] = left, write: Any = write) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            write(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "set_trial_param", killed)
            with pytest.raises(Killed):
                search_of(halved, kind, after + 1, space=space).next()
        assert len(halved.trials[after].params) == written
        search_of(halved, kind, after + 1, space=space).finish_asking(after)
        assert halved.trials[after].params == whole.trials[after].params


@pytest.mark.parametrize("kind", INSTALLED)
def test_another_seed_proposes_other_trials(kind: str) -> None:
    one, other = new_study(), new_study()
    assert run(search_of(one, kind), one) != run(search_of(other, kind, seed=6), other)


def test_extra_dimensions_travel_with_the_step() -> None:
    study = new_study()
    space = SearchSpace([8], (1e-3, 1e-1), {"dropout": FloatDistribution(0.1, 0.2)})
    step = search_of(study, space=space).next()
    assert step is not None
    assert step.extra == {"dropout": study.trials[0].params["dropout"]}


def test_without_pruning_a_step_is_a_whole_trial() -> None:
    study = new_study()
    steps = run(search_of(study, trials=3), study)
    assert [(step.from_epoch, step.until_epoch) for step in steps] == [(0, EPOCHS)] * 3


def test_with_pruning_a_trial_is_looked_at_after_each_epoch() -> None:
    study = new_study()
    steps = run(search_of(study, trials=1, prune=True), study)
    assert [(step.trial, step.from_epoch, step.until_epoch) for step in steps] == [(0, 0, 1), (0, 1, 2), (0, 2, 3)]
    assert [step.reason for step in steps] == ["new", "continues", "continues"]


def test_a_trial_worse_than_the_median_is_given_up_once_and_not_trained_further() -> None:
    study = new_study()
    search = search_of(study, trials=PRUNER_STARTUP_TRIALS, prune=True)
    run(search, study)
    search = search_of(study, trials=PRUNER_STARTUP_TRIALS + 1, prune=True)
    epochs = 0
    while (step := search.next()) is not None:
        epochs += 1
        given_up = train(search, study, step, lambda step, epoch: 0.0)
    assert PRUNER_WARMUP_EPOCHS <= epochs < EPOCHS
    assert given_up == [PRUNER_STARTUP_TRIALS]
    assert search.given_up() == []


def test_a_trial_is_never_given_up_where_pruning_is_off() -> None:
    study = new_study()
    run(search_of(study, trials=PRUNER_STARTUP_TRIALS), study)
    search = search_of(study, trials=PRUNER_STARTUP_TRIALS + 1)
    step = search.next()
    assert step is not None
    assert train(search, study, step, lambda step, epoch: 0.0) == []
    assert study.trials[-1].state == TrialState.COMPLETE


def left_by_another(study: optuna.Study, number: int, *, epochs: int) -> Trial:
    params = study.trials[number].params
    curve = dict.fromkeys(range(1, epochs + 1), (0.5, 1.0))
    return Trial(number, params["batch_size"], params["learning_rate"], curve=curve)


def test_an_adopted_trial_comes_before_a_new_one_and_goes_on_from_its_epoch() -> None:
    study = new_study()
    left = search_of(study, prune=True).next()
    assert left is not None
    search = search_of(study, prune=True)
    search.learn(left_by_another(study, 0, epochs=2))
    step = search.next()
    assert step is not None
    assert (step.trial, step.batch_size, step.learning_rate) == (0, left.batch_size, left.learning_rate)
    assert (step.from_epoch, step.until_epoch, step.reason) == (2, 3, "taken up again")
    train(search, study, step)
    following = search.next()
    assert following is not None
    assert following.trial == 1


@pytest.mark.parametrize("kind", INSTALLED)
def test_a_search_that_adopts_a_half_trained_trial_goes_on_as_if_nothing_had_happened(kind: str) -> None:
    whole, parts = new_study(), new_study()
    run(search_of(whole, kind, trials=9, prune=True), whole)
    first = search_of(parts, kind, trials=4, prune=True)
    run(first, parts)
    first = search_of(parts, kind, trials=9, prune=True)
    half = first.next()
    assert half is not None
    train(first, parts, half)
    second = search_of(parts, kind, trials=9, prune=True)
    second.learn(left_by_another(parts, half.trial, epochs=half.until_epoch))
    run(second, parts)
    for trial, expected in zip(parts.trials, whole.trials, strict=True):
        assert (trial.params, trial.state) == (expected.params, expected.state)
        assert trial.intermediate_values == expected.intermediate_values


def test_a_verdict_that_was_not_written_is_found_again_before_anything_is_trained() -> None:
    """Killed after the epoch was reported and before the trial was pruned."""
    study = new_study()
    run(search_of(study, trials=PRUNER_STARTUP_TRIALS, prune=True), study)
    search = search_of(study, trials=PRUNER_STARTUP_TRIALS + 1, prune=True)
    while (step := search.next()) is not None and step.until_epoch <= PRUNER_WARMUP_EPOCHS:
        optuna.trial.Trial(study, study.trials[step.trial]._trial_id).report(0.0, step.until_epoch)
        if step.until_epoch < PRUNER_WARMUP_EPOCHS:
            search.tell(step.trial, step.until_epoch, 0.0, 1.0)
        else:
            break
    heir = search_of(study, trials=PRUNER_STARTUP_TRIALS + 1, prune=True)
    heir.learn(left_by_another(study, PRUNER_STARTUP_TRIALS, epochs=PRUNER_WARMUP_EPOCHS))
    assert heir.given_up() == [PRUNER_STARTUP_TRIALS]
    assert heir.next() is None


def test_an_adopted_trial_is_trained_even_where_no_new_one_may_start() -> None:
    study = new_study()
    search_of(study, trials=1).next()
    search = search_of(study, trials=1)
    search.learn(left_by_another(study, 0, epochs=0))
    assert [step.trial for step in run(search, study)] == [0]
    assert search.stop_reason == "the trials of this study are used up"


def test_an_infeasible_trial_is_not_proposed_again() -> None:
    study = new_study()
    search = search_of(study, trials=2, prune=True)
    step = search.next()
    assert step is not None
    study.tell(step.trial, state=TrialState.PRUNED)
    search.infeasible(step.trial, "memory")
    assert {step.trial for step in run(search, study)} == {1}
    assert search.given_up() == []


def test_several_trials_may_be_under_way_at_once() -> None:
    study = new_study()
    search = search_of(study, trials=2, prune=True)
    one, other = search.next(), search.next()
    assert one is not None
    assert other is not None
    assert search.next() is None
    train(search, study, other)
    train(search, study, one)
    continued = [search.next(), search.next()]
    assert [step and (step.trial, step.from_epoch) for step in continued] == [(other.trial, 1), (one.trial, 1)]


@pytest.mark.parametrize("search", ["tpe", "random", "grid", "qmc"])
def test_what_the_machine_does_not_hold_is_not_proposed(search: str) -> None:
    """Before any trial, and from the moment on that a trial runs out of memory."""
    space = SearchSpace([16, 64, 256, 1024], (1e-3, 1e-1))
    holds = 256
    study = optuna.create_study(direction="maximize")
    proposed: list[int] = []
    driver = OptunaSearch(
        study,
        space,
        search=search,
        seed=0,
        max_epochs=1,
        budget_left=lambda: len(proposed) < 12,
        prune=False,
        max_batch_size=lambda: holds,
    )
    while (step := driver.next()) is not None:
        proposed.append(step.batch_size)
        if len(proposed) == 6:
            driver.infeasible(step.trial, "memory")
            study.tell(step.trial, state=TrialState.PRUNED)
            holds = 63
            continue
        driver.tell(step.trial, 1, 0.5, 1.0)
        study.tell(step.trial, 0.5)
    assert set(proposed[:6]) <= {16, 64, 256}
    assert len(set(proposed[:6])) > 1
    assert set(proposed[6:]) == {16}
