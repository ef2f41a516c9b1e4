"""The search space: what may be tried, written in few words and refused where it cannot be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from batchopt import SearchSpace, powers_of_two
from batchopt.cli.parsing import parse_batch_sizes, parse_learning_rates
from batchopt.errors import InvalidInput
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

LADDER = SearchSpace([8, 16, 32, 64], (1e-4, 1e-1))
RANGE = SearchSpace((1, 1000), (1e-4, 1e-1))


@pytest.mark.parametrize(
    ("low", "high", "ladder"),
    [(8, 64, [8, 16, 32, 64]), (6, 100, [6, 8, 16, 32, 64, 100]), (1, 3, [1, 2, 3]), (1, 1, [1]), (5, 7, [5, 7])],
)
def test_the_ladder_is_powers_of_two_and_both_ends(low: int, high: int, ladder: list[int]) -> None:
    assert powers_of_two(low, high) == ladder


@pytest.mark.parametrize(("low", "high"), [(0, 8), (-1, 8), (16, 8)])
def test_a_ladder_that_cannot_be_is_refused(low: int, high: int) -> None:
    with pytest.raises(InvalidInput, match=r"give 1 <= low <= high"):
        powers_of_two(low, high)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("8..64", [8, 16, 32, 64]),
        ("1..full", [1, 2, 4, 8, 16, 32, 50]),
        ("full", [50]),
        ("8..64:int", (8, 64)),
        ("1..full:int", (1, 50)),
        ("16,32, 64", [16, 32, 64]),
        ("32", [32]),
    ],
)
def test_batch_sizes_are_written_in_few_words(text: str, sizes: object) -> None:
    assert parse_batch_sizes(text, full=50) == sizes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "0 is below 1"),
        ("-8", "-8 is below 1"),
        ("abc", "'abc' is not a whole number"),
        ("", "not a whole number"),
        ("8..", "not a whole number"),
        ("8,,16", "not a whole number"),
        ("1.5..8", "'1.5' is not a whole number"),
        ("64..8", "reversed range"),
        ("8..64:float", "'float' is unknown after the colon"),
        ("8,16:int", "int"),
    ],
)
def test_batch_sizes_that_cannot_be_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refusal:
        parse_batch_sizes(text, full=50)
    assert f"--batch-sizes {text}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_full_is_refused_where_the_training_set_is_not_known() -> None:
    with pytest.raises(InvalidInput, match="number of training examples is not known"):
        parse_batch_sizes("1..full")


@pytest.mark.parametrize(
    ("text", "rates"), [("1e-4..1e-1", (1e-4, 1e-1)), ("0.01", (0.01, 0.01)), (".001...1", (0.001, 0.1))]
)
def test_learning_rates_are_a_range_or_one_rate(text: str, rates: tuple[float, float]) -> None:
    assert parse_learning_rates(text) == rates


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "above 0"),
        ("-1", "above 0"),
        ("nan", "finite"),
        ("inf", "finite"),
        ("1e-4..inf", "finite"),
        ("0..1", "above 0"),
        ("1e-1..1e-4", "reversed range"),
        ("abc", "not a number"),
        ("", "not a number"),
    ],
)
def test_learning_rates_that_cannot_be_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refusal:
        parse_learning_rates(text)
    assert str(refusal.value).startswith(f"--learning-rates {text}: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": []}, "the list is empty"),
        ({"batch_size": [0, 8]}, "batch size 0 is not a whole number of at least 1"),
        ({"batch_size": [True]}, "batch size True"),
        ({"batch_size": [8.0]}, r"batch size 8\.0"),
        ({"batch_size": (64, 8)}, "low <= high"),
        ({"batch_size": (8,)}, "low <= high"),
        ({"batch_size": [8], "learning_rate": (0.0, 1.0)}, "0 < low <= high"),
        ({"batch_size": [8], "learning_rate": (1.0, 0.1)}, "0 < low <= high"),
        ({"batch_size": [8], "learning_rate": (0.1, math.nan)}, "0 < low <= high"),
        ({"batch_size": [8], "learning_rate": (0.1, 0.2, 0.3)}, "0 < low <= high"),
        ({"batch_size": [8], "extra": {"batch_size": IntDistribution(1, 2)}}, "choose another name"),
    ],
)
def test_a_space_is_validated_where_it_is_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        SearchSpace(**arguments)


def test_a_list_of_batch_sizes_is_sorted_and_has_no_doubles() -> None:
    space = SearchSpace([64, 8, 64, np.int64(16)])
    assert space.batch_size == [8, 16, 64]
    assert (space.smallest, space.largest) == (8, 64)


@pytest.mark.parametrize(("asked", "given"), [(8, 8), (11, 8), (12, 16), (1, 8), (1e6, 64), (45, 32), (46, 64)])
def test_a_batch_size_snaps_to_the_nearest_of_the_ladder_by_ratio(asked: float, given: int) -> None:
    assert LADDER.nearest_batch_size(asked) == given


def test_a_batch_size_of_a_range_is_rounded_and_kept_inside() -> None:
    assert [RANGE.nearest_batch_size(size) for size in (0.2, 7.4, 2000)] == [1, 7, 1000]


@pytest.mark.parametrize("space", [LADDER, RANGE], ids=["ladder", "range"])
def test_the_unit_square_and_back_is_the_identity(space: SearchSpace) -> None:
    sizes = space.grid_batch_sizes()
    rates = space.grid_learning_rates(len(sizes))
    unit = space.to_unit(sizes, rates)
    assert unit.shape == (len(sizes), 2)
    np.testing.assert_allclose(unit[[0, -1]], [[0, 0], [1, 1]])
    for point, size, rate in zip(unit, sizes, rates, strict=True):
        assert space.from_unit(point) == (size, pytest.approx(rate))


def test_a_dimension_with_one_value_lies_at_zero() -> None:
    fixed = SearchSpace([32], (0.01, 0.01))
    np.testing.assert_array_equal(fixed.to_unit(32, 0.01), [0, 0])
    assert fixed.from_unit([0.7, 0.7]) == (32, pytest.approx(0.01))
    assert fixed.grid_learning_rates(7).tolist() == [0.01]


def test_a_point_outside_the_unit_square_is_moved_to_its_edge() -> None:
    assert LADDER.from_unit([-1, 2]) == (8, 1e-1)


def test_the_grid_of_a_range_has_both_ends_and_no_doubles() -> None:
    sizes = RANGE.grid_batch_sizes()
    assert (sizes[0], sizes[-1]) == (1, 1000)
    assert (np.diff(sizes) > 0).all()
    assert LADDER.grid_batch_sizes().tolist() == [8, 16, 32, 64]


def test_the_middle_of_an_extra_dimension_is_one_of_its_values() -> None:
    extra = {
        "dropout": FloatDistribution(0.0, 0.5),
        "decay": FloatDistribution(1e-4, 1e-2, log=True),
        "layers": IntDistribution(1, 4),
        "width": IntDistribution(32, 160, step=32),
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
    }
    middle = SearchSpace([32], extra=extra).middle_of_extra()
    assert middle == {"dropout": 0.25, "decay": pytest.approx(1e-3), "layers": 3, "width": 96, "optimizer": "adam"}
    assert all(extra[name]._contains(extra[name].to_internal_repr(value)) for name, value in middle.items())


@pytest.mark.parametrize(
    "space",
    [LADDER, RANGE, SearchSpace([32], extra={"dropout": FloatDistribution(0, 0.5), "width": IntDistribution(8, 64)})],
    ids=["ladder", "range", "extra"],
)
def test_a_description_is_read_back_as_the_same_space(space: SearchSpace) -> None:
    assert SearchSpace.from_description(space.describe()) == space


def test_optuna_sees_both_dimensions_on_a_log_scale() -> None:
    assert LADDER.distributions() == {
        "batch_size": IntDistribution(8, 64, log=True),
        "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    }
