"""What the curves of trials say, and what to try."""

from __future__ import annotations

import dataclasses

import pytest
from batchopt.question.metric import Metric
from batchopt.report.answer.notes import loss_spread, never_varies, notes
from batchopt.report.answer.targets import to_target
from batchopt.store.history import TrialRecord

METRIC = Metric()


def trial(
    accuracies: list[float], losses: list[float], training: list[tuple[float, float]] | None = None
) -> TrialRecord:
    """With training losses and accuracies that improve where they are not given."""
    training = training or [(1 / at, 0.8 + 0.02 * at) for at in range(1, len(losses) + 1)]
    epochs = [
        {"epoch": at, "value": a, "validation_loss": b, "train_loss": c, "train_value": d}
        for at, (a, b, (c, d)) in enumerate(zip(accuracies, losses, training, strict=True), start=1)
    ]
    return TrialRecord(0, 0, "complete", 64, 0.01, {}, accuracies[-1], epochs, "")


@pytest.mark.parametrize(
    ("accuracies", "losses", "said"),
    [
        ([0.9, 0.95, 0.95, 0.95, 0.95], [0.3, 0.2, 0.22, 0.25, 0.28], "it overfits"),
        ([0.9, 0.95, 0.95, 0.95, 0.95], [0.3, 0.25, 0.22, 0.19, 0.17], "a learning rate that decays"),
        ([0.9, 0.92, 0.94, 0.95, 0.96], [0.3, 0.25, 0.22, 0.19, 0.17], "still improves by 1.3 points an epoch"),
    ],
)
def test_what_the_end_of_the_recommended_curve_says(accuracies: list[float], losses: list[float], said: str) -> None:
    (note,) = notes([trial(accuracies, losses)], recommended=0, metric=METRIC)
    assert said in note


def test_a_loss_that_falls_while_accuracy_has_never_moved_points_to_labels_and_last_layer() -> None:
    stuck = trial([0.1] * 4, [2.0, 1.8, 1.6, 1.4], [(2.0, 0.1), (1.8, 0.1), (1.6, 0.101), (1.4, 0.1)])
    (note,) = notes([stuck], recommended=0, metric=METRIC)
    assert "its accuracy has never moved" in note


def test_a_curve_that_has_settled_or_is_short_or_is_not_recommended_says_nothing() -> None:
    settled = trial([0.9, 0.95, 0.95, 0.95, 0.95], [0.3, 0.2, 0.2, 0.2, 0.2])
    assert notes([settled], recommended=0, metric=METRIC) == []
    assert notes([trial([0.5, 0.9], [0.9, 0.5])], recommended=0, metric=METRIC) == []
    assert notes([trial([0.9, 0.92, 0.94], [0.3, 0.2, 0.1])], recommended=7, metric=METRIC) == []


def test_one_that_has_ended_by_itself_is_not_told_to_go_on() -> None:
    stopped = trial([0.9, 0.92, 0.94, 0.95, 0.96], [0.3, 0.25, 0.22, 0.19, 0.17])
    assert notes([stopped], recommended=0, metric=METRIC, epochs=20) == []
    assert len(notes([stopped], recommended=0, metric=METRIC, epochs=5)) == 1
    paused = dataclasses.replace(stopped, state="running")
    assert len(notes([paused], recommended=0, metric=METRIC, epochs=20)) == 1


def test_trials_that_diverged_are_counted_with_their_batch_sizes_and_rates() -> None:
    sound = trial([0.9], [0.3])
    hot = dataclasses.replace(sound, number=1, batch_size=8, learning_rate=0.05, note="diverged")
    assert notes(
        [sound, hot, dataclasses.replace(hot, batch_size=256, learning_rate=0.1)], recommended=None, metric=METRIC
    ) == ["2 of 3 trials diverged, at batch sizes 8, 256 and learning rates from 0.05."]


def test_the_spread_of_the_loss_is_around_its_line_and_not_how_far_it_falls() -> None:
    steady, jumping = trial([0.9] * 4, [0.4, 0.3, 0.2, 0.1]), trial([0.9] * 4, [0.4, 0.2, 0.3, 0.1])
    assert loss_spread([steady]) == pytest.approx(0.0, abs=1e-9)
    assert loss_spread([jumping]) == pytest.approx(((2 * 0.03**2 + 2 * 0.09**2) / 2) ** 0.5)
    assert loss_spread([trial([0.9], [0.3])]) is None
    assert loss_spread([dataclasses.replace(jumping, note="diverged")]) is None


def test_a_metric_that_never_varies_is_said_with_what_to_look_at() -> None:
    still = [dataclasses.replace(trial([0.0, 0.0], [0.5, 0.4]), number=number) for number in range(3)]
    (note,) = notes(still, recommended=None, metric=METRIC)
    assert "The metric is 0 after every epoch of every trial" in note
    assert to_target(still, METRIC) is None, "nor is a target made of it"
    assert never_varies(still[:1]) is None, "one trial alone says nothing"
    assert never_varies([*still, trial([0.0, 0.1], [0.5, 0.4])]) is None


def test_where_every_trial_diverges_at_once_the_data_is_named() -> None:
    hot = dataclasses.replace(trial([0.9], [0.3]), state="pruned", note="diverged")
    said = notes([hot, dataclasses.replace(hot, number=1, learning_rate=1e-4)], recommended=None, metric=METRIC)
    assert any("look for NaN and labels out of range" in note for note in said)
