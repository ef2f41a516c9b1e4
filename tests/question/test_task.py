"""The records of a question, and how validation data is set apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from batchopt import Dataset, Goal, Task
from batchopt.errors import DataError, InvalidInput
from batchopt.goals.kinds import kind_of
from batchopt.question.metric import Metric
from batchopt.question.task import example_count, take


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count), np.arange(count) % 10


def test_the_split_is_the_same_each_time_and_loses_nothing() -> None:
    one, same = (Dataset(train=numbered(600), validation_examples=100).split() for _ in range(2))
    np.testing.assert_array_equal(one.train[0], same.train[0])
    assert len(one.validation[0]) == 100
    assert sorted([*one.train[0], *one.validation[0]]) == list(range(600))


def test_nothing_is_copied_where_nothing_is_split_off() -> None:
    train = numbered(60)
    assert Dataset(train=train, validation=numbered(7)).split().train[0] is train[0]


def test_fewer_training_examples_leave_the_validation_data_as_it_is() -> None:
    whole = Dataset(train=numbered(600), validation_examples=100).split()
    part = Dataset(train=numbered(600), validation_examples=100).split(50)
    np.testing.assert_array_equal(whole.validation[0], part.validation[0])
    assert len(part.train[0]) == 50
    assert set(part.train[0]) <= set(whole.train[0])


def test_validation_data_that_is_given_is_not_split_off() -> None:
    data = Dataset(train=numbered(60), validation=numbered(7)).split()
    assert (len(data.train[0]), len(data.validation[0])) == (60, 7)


def test_a_sixth_is_validation_data_where_nothing_is_said() -> None:
    data = Dataset(train=numbered(600)).split()
    assert (len(data.train[0]), len(data.validation[0])) == (500, 100)


def test_the_test_set_passes_through_untouched() -> None:
    test = numbered(5)
    assert Dataset(train=numbered(60), test=test).split().test is test


@pytest.mark.parametrize("asked", [0, 600, 601])
def test_a_split_that_leaves_nothing_is_refused(asked: int) -> None:
    with pytest.raises(DataError, match="cannot be split"):
        Dataset(train=numbered(600), validation_examples=asked).split()


def test_more_training_examples_than_there_are_are_refused() -> None:
    with pytest.raises(DataError, match="there are only 500"):
        Dataset(train=numbered(600)).split(501)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"lengths \[3, 4\]"):
        example_count((np.arange(3), {"a": np.arange(4)}))


def test_take_keeps_the_shape_of_the_nest() -> None:
    nest = ({"a": np.arange(4), "b": [np.arange(4) * 10]}, None)
    taken = take(nest, np.array([2, 0]))
    assert taken[0]["a"].tolist() == [2, 0]
    assert taken[0]["b"][0].tolist() == [20, 0]
    assert taken[1] is None


@pytest.mark.parametrize("epochs", [0, -1, True, 2.5])
def test_a_goal_needs_at_least_one_epoch(epochs: int) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        Goal(epochs=epochs)


GOALS: list[tuple[dict[str, object], str]] = [
    ({"kind": "speed"}, "goal 'speed' is unknown. Use best, time, pareto or energy"),
    ({"kind": "time"}, "goal time needs a target: the validation metric to be reached, for example 0.97"),
    ({"target": 0.97}, "target 0.97 is for goals time and energy, and this is best"),
    ({"kind": "pareto", "target": 0.97}, "target 0.97 is for goals time and energy, and this is pareto"),
    ({"kind": "time", "target": float("nan")}, "target nan: give a number"),
]


@pytest.mark.parametrize(("asked", "wrong"), GOALS, ids=[wrong for _, wrong in GOALS])
def test_a_goal_that_cannot_be_is_refused_in_one_line(asked: dict[str, object], wrong: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Goal(**asked)  # type: ignore[arg-type]
    assert wrong in str(refusal.value) and "\n" not in str(refusal.value)


def test_each_goal_has_its_values_and_directions() -> None:
    time = Goal("time", epochs=3, target=1.0)
    assert (kind_of(time, Metric()).directions, time.describe()) == (
        ("minimize",),
        {"kind": "time", "epochs": 3, "target": 1.0},
    )
    pareto = kind_of(Goal("pareto"), Metric("mae", "minimize"))
    assert pareto.directions == ("minimize", "minimize") and len(pareto.value_names) == 2
    assert Goal().describe() == {"kind": "best", "epochs": 5}


def imbalanced(count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """One in sixty of class 1, three of class 2."""
    y = (np.arange(count) % 60 == 0).astype(int)
    y[[5, 77, 301]] = 2
    return np.arange(count), y


@pytest.mark.parametrize("form", [lambda y: y, lambda y: np.eye(3)[y], lambda y: y[:, None], lambda y: y.astype(str)])
def test_a_split_by_class_leaves_validation_its_share_of_each(form: Callable[[Any], Any]) -> None:
    x, y = imbalanced()
    data = Dataset((x, form(y)), validation_examples=100, split_by="class").split()
    shares = [int(np.sum(y[data.validation[0]] == label)) for label in range(3)]
    assert sum(shares) == 100 and shares[1] in (1, 2) and shares[2] == 1
    assert sorted([*data.train[0], *data.validation[0]]) == list(range(600))
    part = Dataset((x, form(y)), validation_examples=100, split_by="class").split(50)
    np.testing.assert_array_equal(part.validation[0], data.validation[0])


def test_a_split_is_by_chance_unless_that_leaves_validation_without_a_class() -> None:
    x, y = imbalanced()
    by_chance = Dataset((x, y), validation_examples=20, split_by="chance").split()
    assert len(np.unique(by_chance.validation[1])) < 3
    assert len(np.unique(Dataset((x, y), validation_examples=20).split().validation[1])) == 3
    same = Dataset(numbered(600)).split(), Dataset(numbered(600), split_by="chance").split()
    np.testing.assert_array_equal(same[0].train[0], same[1].train[0])


def test_a_split_in_time_validates_on_the_last_and_trains_on_what_is_before_them() -> None:
    data = Dataset(numbered(600), split_by="last", validation_examples=100).split(50)
    np.testing.assert_array_equal(data.validation[0], np.arange(500, 600))
    np.testing.assert_array_equal(data.train[0], np.arange(450, 500))


def test_a_split_that_means_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="train y is no array of classes"):
        Dataset((np.arange(60), np.linspace(0, 1, 60)), split_by="class").split()
    with pytest.raises(DataError, match="Use 'chance', 'class' or 'last'"):
        Dataset(numbered(60), split_by="time").split()  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{0: -1.0}, {"a": 1.0}, [1.0, 2.0], {0: float("nan")}])
def test_class_weights_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="give class numbers with weights"):
        Task(print, print, class_weight=wrong)


def test_a_table_is_what_its_columns_are() -> None:
    """Of several kinds of numbers, with missing ones, or of text; numbers beside text are refused by the column."""
    import pandas

    mixed = pandas.DataFrame({"a": [0.5, 1.5], "b": [True, False], "c": [1, 2], "d": pandas.array([3, None], "Int64")})
    data = Dataset((mixed.iloc[::-1], pandas.Series([0, 1], dtype="Int64"), pandas.Series([0.5, 1.0])))
    np.testing.assert_array_equal(data.train[0], [[1.5, 0, 2, np.nan], [0.5, 1, 1, 3]])
    assert data.train[0].dtype == np.float64
    assert [data.train[1].tolist(), data.train[2].tolist()] == [[0, 1], [0.5, 1.0]]
    words = pandas.DataFrame({"a": ["no", "yes"], "b": ["so", "la"]})
    assert Dataset((words, [0, 1])).train[0].tolist() == [["no", "so"], ["yes", "la"]]
    by_column = Dataset((dict(mixed.assign(e=["u", "v"])), [0, 1])).train[0]
    assert by_column["e"].tolist() == ["u", "v"] and by_column["d"].dtype == np.float64
    wrong = (["u", "v"], pandas.Categorical(["u", "v"]), pandas.to_datetime(["2020-01-01", "2020-01-02"]))
    for column in wrong:
        with pytest.raises(
            DataError, match=r"train has a table whose column 'e' holds no numbers \(dtype .*dict\(table"
        ):
            Dataset((mixed.assign(e=column), [0, 1]))


def test_lists_of_numbers_and_tables_are_arrays_and_arrays_stay_what_they_are() -> None:
    class Table:
        def to_numpy(self) -> np.ndarray:
            return np.eye(3)

    data = Dataset(([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0, 1, 1]), validation=({"a": Table()}, [True, False, True]))
    np.testing.assert_array_equal(data.train[0], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert data.train[1].dtype.kind == "i" and data.validation[1].dtype == bool
    np.testing.assert_array_equal(data.validation[0]["a"], np.eye(3))
    two = [np.zeros((4, 2)), np.ones((4, 3))]
    assert Dataset((two, np.zeros(4))).train[0] is two
    with pytest.raises(DataError, match="train has a list whose rows have different lengths"):
        Dataset(([[1, 2], [3]], [0, 1]))
