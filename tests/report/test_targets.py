"""How soon a target is reached, from curves."""

from __future__ import annotations

import pytest

from optimizer.report.targets import best_by_batch_size, to_target
from optimizer.store.history import TrialRecord


def trial(number: int, batch_size: int, accuracies: list[float | None], steps: int = 100) -> TrialRecord:
    rows = [
        {"epoch": at, "validation_accuracy": value, "train_seconds": 2.0, "steps": steps}
        for at, value in enumerate(accuracies, start=1)
    ]
    return TrialRecord(number, number, "complete", batch_size, 0.01, {}, accuracies[-1], rows, "")


def test_the_epochs_to_a_target_are_interpolated_between_evaluations() -> None:
    found = to_target([trial(0, 32, [0.8, 0.9])], 0.85)
    assert found is not None
    (reached,) = found.reached
    assert (reached.epochs, reached.steps, reached.seconds) == pytest.approx((1.5, 150.0, 3.0))


def test_the_soonest_trial_of_each_batch_size_counts() -> None:
    found = to_target([trial(0, 32, [0.8, 0.9]), trial(1, 32, [0.9, 0.9]), trial(2, 64, [0.85])], 0.85)
    assert found is not None
    assert [(row.batch_size, row.trial) for row in found.reached] == [(32, 1), (64, 2)]


def test_a_target_that_nobody_reached_says_how_near_the_study_came() -> None:
    found = to_target([trial(0, 32, [0.8, 0.9]), trial(1, 64, [0.7])], 0.95)
    assert found is not None
    assert (found.reached, found.nearest, found.law) == ([], 0.9, None)


def test_without_a_target_it_is_one_that_half_of_the_batch_sizes_reached() -> None:
    found = to_target([trial(0, 32, [0.95]), trial(1, 64, [0.93]), trial(2, 128, [0.5])])
    assert found is not None
    assert found.target == pytest.approx(0.93)
    assert [row.batch_size for row in found.reached] == [32, 64]


def test_a_curve_that_diverged_reached_nothing_and_before_the_first_epoch_there_is_no_target() -> None:
    found = to_target([trial(0, 32, [None]), trial(1, 64, [0.5])], 0.5)
    assert found is not None
    assert [row.batch_size for row in found.reached] == [64]
    assert to_target([]) is None
    assert best_by_batch_size([trial(0, 32, [None])]) == {}
