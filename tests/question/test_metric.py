"""The metric that a study watches, both ways, and how its values are written."""

from __future__ import annotations

import pytest
from batchopt.errors import InvalidInput
from batchopt.question.metric import Metric

ACCURACY, MAE = Metric(), Metric("mae", "minimize")


@pytest.mark.parametrize(
    "name", ["accuracy", "acc", "binary_accuracy", "top_k_categorical_accuracy", "left_accuracy_1"]
)
def test_an_accuracy_is_written_in_percent_and_its_differences_in_points(name: str) -> None:
    metric = Metric(name)
    assert (metric.shown(0.97261), metric.shown_amount(0.00213)) == ("97.26%", "0.21 points")
    assert metric.shown_interval(0.96858, 0.976) == "96.86 to 97.60%"
    assert str(metric.target(0.97)) == "97%"


@pytest.mark.parametrize("name", ["mae", "loss", "auc", "r2_score", "accuracy_loss", "inaccuracy", "macc"])
def test_another_metric_is_written_in_its_own_units(name: str) -> None:
    metric = Metric(name)
    assert (metric.shown(0.081234), metric.shown(-3.5), metric.shown(None)) == ("0.08123", "-3.5", "-")
    assert (metric.shown_change(-0.0013), metric.shown_amount(0.0013)) == ("-0.0013", "0.0013")
    assert str(metric.target(-0.5)) == "-0.5"


def test_a_target_is_met_from_the_side_that_is_worse() -> None:
    at = MAE.target(0.08)
    assert at is not None
    assert [at.met(value) for value in (0.09, 0.08, -1.0, float("nan"))] == [False, True, True, False]
    assert MAE.best([0.3, 0.1, 0.2]) == 0.1
    assert ACCURACY.best([0.3, 0.1, 0.2]) == 0.3


@pytest.mark.parametrize("value", [0.0, -0.5, 97.0])
def test_a_target_that_no_accuracy_can_be_at_is_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"accuracy is in 0 to 1\. Write 0.97 or 97%"):
        ACCURACY.target(value)
    assert MAE.target(value) is not None


@pytest.mark.parametrize("name", ["val_loss", "validation loss", "loss"])
def test_that_it_is_of_the_validation_data_is_said_once(name: str) -> None:
    assert (Metric(name, "minimize").key, Metric(name, "minimize").title) == ("validation_loss", "loss")
