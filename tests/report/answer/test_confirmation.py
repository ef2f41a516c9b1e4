"""What runs that confirm come to: means, intervals, differences run by run."""

from __future__ import annotations

import dataclasses
import math

import pytest
from batchopt.question.metric import Metric
from batchopt.report.answer.confirmation import confirmation
from batchopt.report.answer.intervals import mean_of
from batchopt.report.answer.recommendation import Recommendation
from batchopt.report.show.confirmation_view import confirmation_sentences, confirmation_table
from batchopt.store.confirmations import ConfirmationRun, Role, plan_of

METRIC = Metric()
ADVICE = Recommendation(128, 0.01, {}, "validation_accuracy", 0.9, 0.8, 0.95, 0.9, 0.01, 2.0, 5.0, 0.9, 2.0, 3)


def run(
    role: Role, number: int, batch_size: int, test: float | None, seconds: float = 1.0, advice: Recommendation = ADVICE
) -> ConfirmationRun:
    return ConfirmationRun(
        plan=plan_of(advice.params),
        role=role,
        run=number,
        trials=30 if advice is ADVICE else 20,
        machine="abacus",
        batch_size=batch_size,
        learning_rate=0.01,
        extra={},
        seed=number,
        epochs=5,
        train_seconds=seconds,
        validation_value=test,
        test_loss=None,
        test_value=test,
    )


def test_an_interval_is_students() -> None:
    """Of 1 to 5: mean 3, standard deviation sqrt(2.5), and the 95 % point of t with 4 degrees of freedom is 2.132."""
    found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found is not None
    assert (found.mean, found.count) == (3.0, 5)
    assert found.high == pytest.approx(3 + 2.1318 * math.sqrt(2.5 / 5), abs=1e-4)
    assert found.low == pytest.approx(6 - found.high)
    assert mean_of([]) is None
    assert mean_of([7.0]).low is None  # type: ignore[union-attr]


def test_differences_are_taken_run_by_run() -> None:
    """Luck that both share, as initial weights are, is no part of the interval."""
    found = confirmation(
        [
            run(role, number, size, luck + gain, seconds)
            for number, luck in enumerate([0.5, 0.6, 0.9])
            for role, size, gain, seconds in (("recommended", 128, 0.0625, 1.0), ("reference", 32, 0.0, 3.0))
        ],
        ADVICE.params,
    )
    assert found is not None
    recommended, reference = found.configurations
    assert (recommended.role, reference.role, found.reference) == ("recommended", "reference", 32)
    assert recommended.value_difference is not None and recommended.test_value is not None
    assert recommended.value_difference.mean == pytest.approx(0.0625)
    assert recommended.value_difference.spread == pytest.approx(0.0, abs=1e-9)
    assert recommended.test_value.spread == pytest.approx(found.test_spread) == pytest.approx(0.2082, abs=1e-4)
    assert recommended.seconds_difference is not None
    assert recommended.seconds_difference.mean == -2.0
    assert (reference.value_difference, reference.seconds_difference) == (None, None)
    cells, marked = confirmation_table(found, METRIC).rows[0]
    assert marked and cells[:5] == ["recommended", "128", "0.01", "3", "72.92% \N{PLUS-MINUS SIGN} 35.09"]
    assert cells[5:8] == ["+6.25 \N{PLUS-MINUS SIGN} 0.00", "1 \N{PLUS-MINUS SIGN} 0", "-2 \N{PLUS-MINUS SIGN} 0"]
    assert (
        "From seed to seed, runs of one configuration differ by 21 points" in confirmation_sentences(found, METRIC)[1]
    )


def test_where_the_recommendation_is_the_common_default_it_is_what_is_compared_with() -> None:
    advice = dataclasses.replace(ADVICE, batch_size=32)
    found = confirmation(
        [run("recommended", 0, 32, 0.9, advice=advice), run("fastest", 0, 256, 0.8, advice=advice)], advice.params
    )
    assert found is not None
    assert [row.value_difference is None for row in found.configurations] == [True, False]
    assert found.reference == 32


def test_a_run_that_diverged_is_counted_and_in_no_mean() -> None:
    found = confirmation([run("recommended", 0, 32, 0.9), run("recommended", 1, 32, None)], ADVICE.params)
    assert found is not None
    (row,) = found.configurations
    assert row.diverged == 1
    assert row.test_value is not None
    assert (row.test_value.mean, row.test_value.count) == (0.9, 1)
    assert found.test_spread is None
    nothing = confirmation([run("recommended", 0, 32, None)], ADVICE.params)
    assert nothing is not None
    assert nothing.configurations[0].test_value is None
    assert confirmation_table(nothing, METRIC).rows[0][0][3:5] == ["0 (1 diverged)", ""]


def test_another_recommendation_than_the_one_that_was_confirmed_is_said_so() -> None:
    before = dataclasses.replace(ADVICE, batch_size=64)
    old = run("recommended", 0, 64, 0.8, advice=before)
    found = confirmation([old], ADVICE.params)
    assert found is not None
    assert not found.current
    assert "after 20 trials" in confirmation_sentences(found, METRIC)[-1]
    both = confirmation([old, run("recommended", 0, 128, 0.9)], ADVICE.params)
    assert both is not None
    assert (both.current, both.recommendations, both.configurations[0].batch_size) == (True, 2, 128)
    assert any("opened for 2 recommendations" in sentence for sentence in confirmation_sentences(both, METRIC))


def test_that_something_else_stands_for_the_common_default_is_said() -> None:
    found = confirmation([run("recommended", 0, 256, 0.9), run("reference", 0, 64, 0.9)], ADVICE.params)
    assert found is not None
    assert found.reference == 64
    assert any("the nearest, 64, is the reference" in text for text in confirmation_sentences(found, METRIC))


def test_seconds_to_a_target_are_those_of_runs_that_reached_it_and_the_others_are_counted() -> None:
    def to_target(role: Role, number: int, size: int, reached: float, seconds: float) -> ConfirmationRun:
        return dataclasses.replace(run(role, number, size, 0.95, seconds), validation_value=reached)

    runs = [
        to_target("recommended", 0, 128, 0.97, 2.0),
        to_target("recommended", 1, 128, 0.98, 3.0),
        to_target("recommended", 2, 128, 0.96, 9.0),
        to_target("reference", 0, 32, 0.97, 5.0),
        to_target("reference", 1, 32, 0.97, 6.0),
        to_target("reference", 2, 32, 0.97, 7.0),
    ]
    found = confirmation(runs, ADVICE.params, METRIC.target(0.97))
    assert found is not None
    recommended, reference = found.configurations
    assert (recommended.missed, recommended.diverged, reference.missed) == (1, 0, 0)
    assert recommended.train_seconds is not None and recommended.seconds_difference is not None
    assert (recommended.train_seconds.mean, recommended.train_seconds.count) == (2.5, 2)
    assert (recommended.seconds_difference.mean, recommended.seconds_difference.spread) == (-3.0, 0.0)
    table, said = confirmation_table(found, METRIC), confirmation_sentences(found, METRIC)
    assert table.columns[4:6] == ("s to 97%", "against 32")
    cells = [
        "2 (1 missed the target)",
        "2.5 \N{PLUS-MINUS SIGN} 3.2",
        "-3 \N{PLUS-MINUS SIGN} 0",
        "95.00% \N{PLUS-MINUS SIGN} 0.00",
    ]
    assert table.rows[0][0][3:7] == cells
    assert "each trained until 97% validation accuracy" in said[0] and "are excluded" in said[1]
    assert not any("From seed to seed" in sentence for sentence in said)
    none = confirmation(runs[2:3], ADVICE.params, METRIC.target(0.97))
    assert none is not None
    assert confirmation_table(none, METRIC).rows[0][0][3:5] == ["0 (1 missed the target)", ""]
    whole = confirmation(runs, ADVICE.params)
    assert whole is not None
    assert whole.configurations[0].missed == 0, "without a target there is none to miss"


def test_before_the_first_run_there_is_nothing_to_say() -> None:
    assert confirmation([], ADVICE.params) is None
