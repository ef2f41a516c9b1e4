"""Points that fill a cube evenly."""

from __future__ import annotations

import numpy as np
import pytest
from batchopt.search.surrogate.sequence import evenly


@pytest.mark.parametrize("dims", [1, 2, 3, 8])
def test_any_number_of_points_lies_more_evenly_than_chance_would_have_it(dims: int) -> None:
    """In each dimension the largest gap of a hundred points; a hundred random ones leave gaps of 5 to 10 %."""
    points = evenly(100, dims, np.random.default_rng(1))
    assert points.shape == (100, dims) and (points >= 0).all() and (points < 1).all()
    assert np.diff(np.sort(points, axis=0), axis=0).max() < 0.05


def test_dimensions_are_filled_together() -> None:
    """Each of 16 cells of the square has its share of 160 points."""
    cells = (evenly(160, 2, np.random.default_rng(0)) * 4).astype(int)
    counts = np.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    assert counts.min() >= 6 and counts.max() <= 14


def test_shifts_differ_by_generator_and_points_repeat_with_it() -> None:
    first, again, other = (evenly(4, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all() and not np.isclose(first, other).any()
