"""Candidates: what is left to try lies closer together, the more was tried."""

from __future__ import annotations

import numpy as np
import pytest
from batchopt.search.surrogate.candidates import apart


@pytest.mark.parametrize(("tried", "nearest"), [(1, 0.03), (11, 0.03), (25, 0.02), (100, 0.01)])
def test_the_more_was_tried_the_closer_a_new_configuration_may_lie(tried: int, nearest: float) -> None:
    known = np.tile([0.5, 0.5], (tried, 1))
    points = np.array([[0.5 + 0.99 * nearest, 0.5], [0.5, 0.5 + 1.01 * nearest]])
    assert apart(points, known).tolist() == [False, True]


def test_where_nothing_was_tried_everything_is_new(rng: np.random.Generator) -> None:
    assert apart(rng.random((5, 2)), np.empty((0, 2))).all()
