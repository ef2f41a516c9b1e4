"""The search space as a cube: Optuna's distributions to coordinates of the surrogate, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

FloatArray = npt.NDArray[np.float64]

CHOICE_SIDE = math.sqrt(0.5)
"""A choice's column where it is taken: two choices then lie at distance 1, as the ends of a numeric dimension do."""


class Cube:
    """Named dimensions, each a column in 0 to 1 (log where the distribution is), or one column a choice.

    Args:
        distributions: by name; the order is kept.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)
        self._slices: dict[str, slice] = {}
        width = 0
        for name, distribution in self._distributions.items():
            columns = len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1
            self._slices[name] = slice(width, width + columns)
            width += columns
        self.width = width

    def column(self, name: str) -> int:
        """The first column of a dimension."""
        return int(self._slices[name].start)

    def distribution(self, name: str) -> BaseDistribution | None:
        """What a dimension may be; None where there is no such dimension."""
        return self._distributions.get(name)

    def encode(self, configurations: Iterable[Mapping[str, Any]]) -> FloatArray:
        """Coordinates of configurations, shape (configurations, width)."""
        known = list(configurations)
        points = np.zeros((len(known), self.width))
        for name, distribution in self._distributions.items():
            columns, values = self._slices[name], [configuration[name] for configuration in known]
            if isinstance(distribution, CategoricalDistribution):
                chosen = [round(distribution.to_internal_repr(value)) for value in values]
                points[np.arange(len(known)), np.array(chosen, dtype=np.int64) + columns.start] = CHOICE_SIDE
            else:
                assert isinstance(distribution, FloatDistribution | IntDistribution)
                points[:, columns.start] = _to_unit(np.array(values, dtype=np.float64), distribution)
        return points

    def decode(self, points: FloatArray) -> list[dict[str, Any]]:
        """The valid configurations nearest to points, shape (points, width), as plain Python values."""
        columns = [
            _decoded(distribution, points[:, self._slices[name]]) for name, distribution in self._distributions.items()
        ]
        return [dict(zip(self._distributions, values, strict=True)) for values in zip(*columns, strict=True)]

    def fill(self, uniform: FloatArray) -> FloatArray:
        """Coordinates from uniform numbers.

        Args:
            uniform: in 0 to 1, shape (points, dimensions); a choice is drawn by its column's value.

        Returns:
            Shape (points, width).
        """
        points = np.zeros((len(uniform), self.width))
        for index, (name, distribution) in enumerate(self._distributions.items()):
            columns = self._slices[name]
            if isinstance(distribution, CategoricalDistribution):
                count = len(distribution.choices)
                chosen = np.minimum((uniform[:, index] * count).astype(int), count - 1)
                points[np.arange(len(uniform)), columns.start + chosen] = CHOICE_SIDE
            else:
                points[:, columns.start] = uniform[:, index]
        return points

    @property
    def numeric_columns(self) -> list[int]:
        """Columns of dimensions that are not a choice."""
        return [
            self._slices[name].start
            for name, distribution in self._distributions.items()
            if not isinstance(distribution, CategoricalDistribution)
        ]

    def __len__(self) -> int:
        return len(self._distributions)


def _to_unit(values: FloatArray, distribution: FloatDistribution | IntDistribution) -> FloatArray:
    low, high = float(distribution.low), float(distribution.high)
    if low == high:
        return np.zeros_like(values)
    if distribution.log:
        return np.asarray(np.log(values / low) / math.log(high / low))
    return (values - low) / (high - low)


def _decoded(distribution: BaseDistribution, columns: FloatArray) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return [distribution.choices[index] for index in columns.argmax(axis=1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    unit = columns[:, 0].clip(0.0, 1.0)
    values = low * (high / low) ** unit if distribution.log else low + unit * (high - low)
    if distribution.step and not distribution.log:
        values = low + np.rint((values - low) / distribution.step) * distribution.step
    values = values.clip(low, high)
    whole = isinstance(distribution, IntDistribution)
    found: list[Any] = np.rint(values).astype(np.int64).tolist() if whole else values.tolist()
    return found
