"""Candidates: what is left to try lies closer together, the more was tried."""

from __future__ import annotations

import numpy as np
import pytest
from batchopt.search.surrogate.candidates import CORNERS, SPREAD, apart, candidates
from batchopt.search.surrogate.cube import Cube
from optuna.distributions import CategoricalDistribution, FloatDistribution


@pytest.mark.parametrize(("tried", "nearest"), [(1, 0.03), (11, 0.03), (25, 0.02), (100, 0.01)])
def test_the_more_was_tried_the_closer_a_new_configuration_may_lie(tried: int, nearest: float) -> None:
    known = np.tile([0.5, 0.5], (tried, 1))
    points = np.array([[0.5 + 0.99 * nearest, 0.5], [0.5, 0.5 + 1.01 * nearest]])
    assert apart(points, known).tolist() == [False, True]


def test_where_nothing_was_tried_everything_is_new(rng: np.random.Generator) -> None:
    assert apart(rng.random((5, 2)), np.empty((0, 2))).all()


@pytest.mark.parametrize(("dims", "corners"), [(1, 2), (2, 4), (3, 8), (9, CORNERS)])
def test_they_hold_every_corner_of_few_dimensions_and_some_of_many(
    dims: int, corners: int, rng: np.random.Generator
) -> None:
    cube = Cube({f"x{at}": FloatDistribution(0.0, 1.0) for at in range(dims)})
    points = candidates(cube, np.empty((0, dims)), rng)
    found = np.unique(points[np.isin(points, (0.0, 1.0)).all(axis=1)], axis=0)
    assert len(found) >= corners - (dims > 3) and points.min() >= 0.0 and points.max() <= 1.0


def test_a_corner_has_one_choice_of_each_dimension_that_has_no_ends(rng: np.random.Generator) -> None:
    cube = Cube({"x": FloatDistribution(0.0, 1.0), "of": CategoricalDistribution(("a", "b", "c"))})
    points = candidates(cube, np.empty((0, cube.width)), rng)
    assert {0.0, 1.0} <= set(points[:, 0]) and ((points[:, 1:] > 0).sum(axis=1) == 1).all()
    only = Cube({"of": CategoricalDistribution(("a", "b"))})
    assert (candidates(only, np.empty((0, 2)), rng) > 0).sum(axis=1).tolist() == [1] * SPREAD
