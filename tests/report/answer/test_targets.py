"""How soon a target is reached, from curves."""

from __future__ import annotations

import dataclasses
import math

import pytest
from batchopt.question.metric import Metric
from batchopt.report.answer.targets import best_by_batch_size, to_target
from batchopt.store.history import TrialRecord

METRIC = Metric()


def trial(number: int, batch_size: int, accuracies: list[float | None], steps: int = 100) -> TrialRecord:
    rows = [
        {"epoch": at, "value": value, "train_seconds": 2.0, "steps": steps}
        for at, value in enumerate(accuracies, start=1)
    ]
    return TrialRecord(number, number, "complete", batch_size, 0.01, {}, accuracies[-1], rows, "")


def test_the_epochs_to_a_target_are_interpolated_between_evaluations() -> None:
    found = to_target([trial(0, 32, [0.8, 0.9])], METRIC, 0.85)
    assert found is not None
    (reached,) = found.reached
    assert (reached.epochs, reached.steps, reached.seconds) == pytest.approx((1.5, 150.0, 3.0))


def test_a_target_reached_within_the_first_epoch_is_known_to_the_epoch_and_no_closer() -> None:
    """Accuracy before the first epoch is unknown, and rises by most in it: a line from 0 would be made up."""
    found = to_target([trial(0, 32, [0.95, 0.96])], METRIC, 0.9)
    assert found is not None
    (reached,) = found.reached
    assert reached.within_first
    assert (reached.epochs, reached.steps, reached.seconds) == (1.0, 100.0, 2.0)


def test_what_was_reached_within_the_first_epoch_is_no_evidence_for_the_law_of_steps() -> None:
    """1024 examples: three batch sizes follow 20 (1 + 100 / B); the smaller two got there within an epoch."""
    trials = [trial(size, size, [0.95], steps=1024 // size) for size in (1, 8)]
    for size in (64, 128, 256):
        epochs = 20 * (1 + 100 / size) / (1024 // size)
        whole = math.floor(epochs)
        trials.append(trial(size, size, [0.8] * whole + [0.8 + 0.1 / (epochs - whole)], steps=1024 // size))
    found = to_target(trials, METRIC, 0.9)
    assert found is not None
    assert [row.batch_size for row in found.reached if row.within_first] == [1, 8]
    assert found.law is not None
    assert (found.law.min_steps, found.law.critical_batch_size) == pytest.approx((20, 100))
    assert found.law.followed


def test_what_diverged_in_the_end_reached_nothing() -> None:
    good = trial(0, 32, [0.8, 0.85])
    found = to_target([good, dataclasses.replace(trial(1, 64, [0.99, 0.99]), note="diverged")], METRIC, 0.85)
    assert found is not None
    assert [row.batch_size for row in found.reached] == [32]
    assert found.nearest == 0.85


def test_the_soonest_trial_of_each_batch_size_counts() -> None:
    found = to_target(
        [trial(0, 32, [0.8, 0.8, 0.9]), trial(1, 32, [0.8, 0.9]), trial(2, 64, [0.5, 0.85])], METRIC, 0.85
    )
    assert found is not None
    assert [(row.batch_size, row.trial) for row in found.reached] == [(32, 1), (64, 2)]


def test_a_target_that_nobody_reached_says_how_near_the_study_came() -> None:
    found = to_target([trial(0, 32, [0.8, 0.9]), trial(1, 64, [0.7])], METRIC, 0.95)
    assert found is not None
    assert (found.reached, found.nearest, found.law) == ([], 0.9, None)


def test_without_a_target_it_is_one_that_half_of_the_batch_sizes_reached() -> None:
    found = to_target([trial(0, 32, [0.95]), trial(1, 64, [0.93]), trial(2, 128, [0.5])], METRIC)
    assert found is not None
    assert found.target == pytest.approx(0.93)
    assert [row.batch_size for row in found.reached] == [32, 64]


def test_a_curve_that_diverged_reached_nothing_and_before_the_first_epoch_there_is_no_target() -> None:
    found = to_target([trial(0, 32, [None]), trial(1, 64, [0.5])], METRIC, 0.5)
    assert found is not None
    assert [row.batch_size for row in found.reached] == [64]
    assert to_target([], METRIC) is None
    assert best_by_batch_size([trial(0, 32, [None])], METRIC) == {}
