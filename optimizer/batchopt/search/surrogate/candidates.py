"""Configurations worth a thought: spread over the cube, near the best, on its faces and at its corners."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchopt.search.surrogate.cube import Cube
from batchopt.search.surrogate.sequence import evenly

FloatArray = npt.NDArray[np.float64]

SPREAD, FACES, NEAR = 256, 48, 128
"""How many of each."""

CORNERS = 8
"""At most so many: all of them in up to three dimensions. On a face or near the best no candidate is quite in a corner,
and where the best is, it was approached for the length of a study."""

NEAR_RADII = (0.02, 0.06, 0.15)
"""Standard deviations around the best, in sides of the cube."""

APART, CLOSER = 0.03, 0.1
"""Two configurations nearer than this teach the same; where many were tried what is left to learn lies closer together:
nearer than `CLOSER` over the square root of their number, as far as so many points of a square are apart."""

PART = 2048
"""Trials that are looked at together."""


def apart(points: FloatArray, tried: FloatArray, *, distance: float | None = None) -> npt.NDArray[np.bool_]:
    """Which points are not next to any that was tried.

    Args:
        points: shape (points, width).
        tried: shape (trials, width), may be empty.
        distance: how near is next to it, in the cube's units; None for what their number allows.

    Returns:
        Shape (points,).
    """
    if not len(tried):
        return np.ones(len(points), dtype=bool)
    if distance is None:
        distance = min(APART, CLOSER / math.sqrt(len(tried)))
    nearest = np.full(len(points), np.inf)
    # By parts, for memory: all pairs of a study of fifty thousand trials would be a gigabyte.
    for start in range(0, len(tried), PART):
        pairs = ((points[:, None] - tried[start : start + PART]) ** 2).sum(-1)
        nearest = np.minimum(nearest, pairs.min(axis=1))
    return nearest > distance**2


def candidates(cube: Cube, best: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Points of the cube, those that the space does not hold included.

    Args:
        cube: the space.
        best: points to look around, shape (points, width).
        rng: decides which.

    Returns:
        Shape (candidates, width).
    """
    uniform = evenly(SPREAD, max(len(cube), 1), rng)
    spread = cube.fill(uniform)
    columns = cube.numeric_columns
    groups = [spread]
    if columns:
        faces = spread[:FACES].copy()
        faces[np.arange(FACES), rng.choice(columns, FACES)] = rng.integers(0, 2, FACES)
        groups.append(faces)
        groups.append(_at_corners(spread, columns, rng))
        if len(best):
            near = best[rng.integers(0, len(best), NEAR)].copy()
            radius = rng.choice(NEAR_RADII, (NEAR, 1))
            near[:, columns] += radius * rng.standard_normal((NEAR, len(columns)))
            near[:, columns] = near[:, columns].clip(0.0, 1.0)
            groups.append(near)
    return np.concatenate(groups)


def _at_corners(spread: FloatArray, columns: Sequence[int], rng: np.random.Generator) -> FloatArray:
    """Some of the points, moved to corners in these columns."""
    if 2 ** len(columns) <= CORNERS:
        ends = np.array(list(itertools.product((0.0, 1.0), repeat=len(columns))))
    else:
        ends = rng.integers(0, 2, (CORNERS, len(columns))).astype(float)
    corners = spread[: len(ends)].copy()
    corners[:, columns] = ends
    return corners
