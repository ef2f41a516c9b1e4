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
        rows = [self._encode_one(configuration) for configuration in configurations]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.width)

    def decode(self, row: FloatArray) -> dict[str, Any]:
        """The valid configuration nearest to a point, shape (width,), as plain Python values."""
        return {
            name: _decode(distribution, row[self._slices[name]]) for name, distribution in self._distributions.items()
        }

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

    def _encode_one(self, configuration: Mapping[str, Any]) -> FloatArray:
        row = np.zeros(self.width)
        for name, distribution in self._distributions.items():
            columns, value = self._slices[name], configuration[name]
            if isinstance(distribution, CategoricalDistribution):
                row[columns.start + round(distribution.to_internal_repr(value))] = CHOICE_SIDE
            else:
                assert isinstance(distribution, FloatDistribution | IntDistribution)
                row[columns.start] = _to_unit(float(value), distribution)
        return row


def _to_unit(value: float, distribution: FloatDistribution | IntDistribution) -> float:
    low, high = float(distribution.low), float(distribution.high)
    if low == high:
        return 0.0
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _decode(distribution: BaseDistribution, columns: FloatArray) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(columns.argmax())]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    unit = min(max(float(columns[0]), 0.0), 1.0)
    value = low * (high / low) ** unit if distribution.log else low + unit * (high - low)
    if distribution.step and not distribution.log:
        value = low + round((value - low) / distribution.step) * distribution.step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)
