"""BatchSizeSampler: Optuna's own conformance suites, and what it promises beyond them."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from batchopt.search import BatchSizeSampler
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {
    "batch_size": IntDistribution(8, 512, log=True),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: BatchSizeSampler(seed=0)


class TestRelative(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: BatchSizeSampler(seed=0)


class TestMultiObjective(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: BatchSizeSampler(seed=0)


# SingleOnlySamplerTestCase is left out: it asks that several objectives be refused, and this sampler takes them.


def accuracy(params):
    """Best, 0.98, at a rate of 0.003 for a batch of 64, moving by the square root."""
    off = np.log10(params["learning_rate"] / 0.003) - 0.5 * np.log10(params["batch_size"] / 64)
    return 0.98 - 0.2 * off**2 - 0.01 * np.log2(params["batch_size"] / 64) ** 2


def run(study, count):
    for _ in range(count):
        trial = study.ask(SPACE)
        study.tell(trial, accuracy(trial.params))


def test_it_finds_the_best_rate_for_the_best_batch_size():
    study = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=1))
    run(study, 15)
    assert study.best_value > 0.97


def test_an_interrupted_study_proposes_what_an_uninterrupted_one_does():
    whole = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=3))
    run(whole, 9)
    parts = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=3))
    for count in (1, 3, 5):
        parts.sampler = BatchSizeSampler(seed=3)
        run(parts, count)
    assert [t.params for t in whole.trials] == [t.params for t in parts.trials]


def test_workers_that_ask_at_once_do_not_pile_up():
    study = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=2))
    run(study, 6)
    asked = [study.ask(SPACE).params for _ in range(4)]
    units = np.array(
        [[np.log(p["batch_size"] / 8) / np.log(64), np.log10(p["learning_rate"] / 1e-4) / 3] for p in asked]
    )
    gaps = np.sqrt(((units[:, None] - units) ** 2).sum(-1))[np.triu_indices(4, 1)]
    assert gaps.min() > 0.03


def test_pruned_trials_teach_by_their_curves():
    """Where all high rates were pruned at a low value, the next proposals stay away from them."""
    study = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=4))
    for size in (8, 64, 512):
        for rate, value in ((1e-3, 0.9), (1e-1, 0.1), (4e-2, 0.2)):
            study.add_trial(
                optuna.create_trial(
                    params={"batch_size": size, "learning_rate": rate},
                    distributions=SPACE,
                    state=TrialState.PRUNED if value < 0.5 else TrialState.COMPLETE,
                    value=value,
                    intermediate_values=dict.fromkeys(range(1, 4 if value < 0.5 else 11), value),
                )
            )
    assert all(study.ask(SPACE).params["learning_rate"] < 4e-2 for _ in range(2))


def test_a_batch_size_that_did_not_fit_is_never_exceeded():
    study = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=5))
    for size, over in ((64, -1e6), (256, 1e6), (128, -1e5)):
        study.add_trial(
            optuna.create_trial(
                params={"batch_size": size, "learning_rate": 1e-3},
                distributions=SPACE,
                state=TrialState.PRUNED if over > 0 else TrialState.COMPLETE,
                value=None if over > 0 else 0.9,
                constraints={"memory": over},
            )
        )
    assert all(study.ask(SPACE).params["batch_size"] < 256 for _ in range(8))


def test_a_learned_constraint_is_respected():
    study = optuna.create_study(direction="maximize", sampler=BatchSizeSampler(seed=6))
    for _ in range(16):
        trial = study.ask(SPACE)
        trial.set_constraint("rate", np.log10(trial.params["learning_rate"]) + 3.0)
        study.tell(trial, accuracy(trial.params))
    assert study.best_trial.params["learning_rate"] <= 1e-3
    assert study.best_value > 0.94  # the best under the constraint is 0.955


def test_several_objectives_spread_along_the_front():
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=BatchSizeSampler(seed=7))
    for _ in range(16):
        trial = study.ask({"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(["good", "bad"])})
        worse = 1.0 if trial.params["kind"] == "bad" else 0.0
        study.tell(trial, [trial.params["x"] + worse, 1 - trial.params["x"] + worse])
    front = [t for t in study.trials if t.params["kind"] == "good"]
    assert len(front) >= 9
    assert np.ptp([t.params["x"] for t in front]) > 0.6


def test_infinite_values_are_taken_as_the_worst_seen():
    study = optuna.create_study(direction="minimize", sampler=BatchSizeSampler(seed=8))
    for value in (0.3, float("inf"), 0.2, float("inf")):
        study.tell(study.ask(SPACE), value)
    assert study.ask(SPACE).params["batch_size"] >= 8


def test_an_enqueued_trial_is_taken_as_it_is():
    study = optuna.create_study(sampler=BatchSizeSampler(seed=9))
    study.enqueue_trial({"batch_size": 100, "learning_rate": 0.01})
    assert study.ask(SPACE).params == {"batch_size": 100, "learning_rate": 0.01}
