"""The search space: batch sizes, learning rates, and optional further dimensions.

Batch size and learning rate act by ratios, so both are searched on a log scale. A batch size is one of a fixed
ladder, usually powers of two, or any integer of a range. The space of a study never changes: what one machine
cannot hold is infeasible there, not cut away.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from batchopt.errors import InvalidInput

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BATCH_SIZE = "batch_size"
LEARNING_RATE = "learning_rate"
COMMON_BATCH_SIZE = 32
"""The default of most libraries, which other batch sizes are compared with."""

LARGEST_BATCH_SIZE = 1 << 40

GRID_RANGE_SIZES = 64
"""How many batch sizes stand for a whole integer range where every one cannot be listed."""


def powers_of_two(low: int, high: int) -> list[int]:
    """The ladder of powers of two from `low` to `high` examples, both ends included whatever they are."""
    if not (isinstance(low, int) and isinstance(high, int) and 1 <= low <= high):
        raise InvalidInput(f"batch sizes {low}..{high}: give 1 <= low <= high, whole numbers.")
    first = math.floor(math.log2(low)) + 1
    return sorted({low, high, *(2**k for k in range(first, high.bit_length()) if 2**k < high)})


@dataclass(frozen=True)
class SearchSpace:
    """What a study may try; validated here, once.

    Attributes:
        batch_size: examples per optimizer step. A tuple `(low, high)` is every integer between; a list is exactly
            these (see `powers_of_two`).
        learning_rate: `(low, high)`, as applied by the optimizer; `low == high` fixes it.
        extra: further dimensions by name, as Optuna distributions; passed to `build_model` as keyword arguments.

    Raises:
        InvalidInput: a size below 1, a rate not positive and finite, an empty or reversed range.
    """

    batch_size: tuple[int, int] | list[int]
    learning_rate: tuple[float, float] = (1e-4, 1e-1)
    extra: Mapping[str, BaseDistribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, str) or not isinstance(self.batch_size, Iterable):
            raise InvalidInput(f"batch sizes {self.batch_size!r}: give (low, high) or a list.")
        if not isinstance(self.learning_rate, tuple | list) or not all(
            isinstance(rate, numbers.Real) for rate in self.learning_rate
        ):
            raise InvalidInput(f"learning rates {self.learning_rate!r}: give (low, high), two numbers.")
        if not isinstance(self.extra, Mapping) or not all(
            isinstance(name, str) and isinstance(dimension, BaseDistribution) for name, dimension in self.extra.items()
        ):
            raise InvalidInput(f"extra {self.extra!r}: give Optuna distributions by the names of arguments.")
        sizes = list(self.batch_size)
        if not sizes:
            raise InvalidInput("batch sizes: the list is empty. Give at least one, for example 32.")
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
                raise InvalidInput(f"batch size {size!r} is not a whole number of at least 1.")
            if size > LARGEST_BATCH_SIZE:
                raise InvalidInput(f"batch size {size} is above {LARGEST_BATCH_SIZE}: no data set is so large.")
        if isinstance(self.batch_size, tuple):
            if len(sizes) != 2 or sizes[0] > sizes[1]:
                raise InvalidInput(f"batch sizes {self.batch_size}: give (low, high) with low <= high, or a list.")
            object.__setattr__(self, "batch_size", (int(sizes[0]), int(sizes[1])))
        else:
            object.__setattr__(self, "batch_size", sorted({int(size) for size in sizes}))
        rates = tuple(float(rate) for rate in self.learning_rate)
        if len(rates) != 2 or not all(math.isfinite(rate) and rate > 0 for rate in rates) or rates[0] > rates[1]:
            raise InvalidInput(f"learning rates {self.learning_rate}: give (low, high), 0 < low <= high.")
        object.__setattr__(self, "learning_rate", rates)
        taken = {BATCH_SIZE, LEARNING_RATE} & set(self.extra)
        if taken:
            raise InvalidInput(f"extra dimension {min(taken)!r} is the space's own; choose another name.")
        object.__setattr__(self, "extra", dict(self.extra))

    @property
    def smallest(self) -> int:
        """The least batch size, in examples."""
        return self.batch_size[0]

    @property
    def largest(self) -> int:
        """The greatest batch size, in examples."""
        return self.batch_size[-1]

    def grid_batch_sizes(self) -> IntArray:
        """The batch sizes that stand for the space on a grid, ascending, shape (sizes,)."""
        if isinstance(self.batch_size, list):
            return np.array(self.batch_size, dtype=np.int64)
        low, high = self.batch_size
        spaced = np.geomspace(low, high, GRID_RANGE_SIZES).round().astype(np.int64)
        return np.unique(np.clip(spaced, low, high))

    def grid_learning_rates(self, count: int) -> FloatArray:
        """`count` learning rates, log-spaced with both ends, ascending, shape (count,)."""
        low, high = self.learning_rate
        return np.array([low]) if low == high else np.geomspace(low, high, count)

    def nearest_batch_size(self, batch_size: float) -> int:
        """The batch size of the space that is nearest by ratio."""
        if isinstance(self.batch_size, tuple):
            low, high = self.batch_size
            return int(min(max(round(batch_size), low), high))
        return min(self.batch_size, key=lambda size: abs(math.log(size / batch_size)))

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether a batch size and a learning rate are of this space."""
        size, (low, high) = params[BATCH_SIZE], self.learning_rate
        among = size in self.batch_size if isinstance(self.batch_size, list) else self.smallest <= size <= self.largest
        return among and low <= params[LEARNING_RATE] <= high

    def snapped(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration by dimension, its batch size moved to the nearest of the space."""
        return {**params, BATCH_SIZE: self.nearest_batch_size(params[BATCH_SIZE])}

    def to_unit(self, batch_size: npt.ArrayLike, learning_rate: npt.ArrayLike) -> FloatArray:
        """Log coordinates in the unit square, shape (..., 2); a dimension with one value lies at 0."""
        return np.stack(
            [
                _to_unit(batch_size, self.smallest, self.largest),
                _to_unit(learning_rate, *self.learning_rate),
            ],
            axis=-1,
        )

    def from_unit(self, unit: npt.ArrayLike) -> tuple[int, float]:
        """The configuration of the space nearest to a point of the unit square, shape (2,)."""
        u, v = np.clip(np.asarray(unit, dtype=float), 0.0, 1.0)
        low, high = self.learning_rate
        rate = math.exp(math.log(low) + float(v) * math.log(high / low))
        size = math.exp(math.log(self.smallest) + float(u) * math.log(self.largest / self.smallest))
        return self.nearest_batch_size(size), min(max(rate, low), high)

    def middle_of_extra(self) -> dict[str, Any]:
        """Some valid value for each extra dimension: its middle, or its first choice."""
        return {name: _middle(distribution) for name, distribution in self.extra.items()}

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space in Optuna's terms; a list of batch sizes becomes the integer range that it spans."""
        return {
            BATCH_SIZE: IntDistribution(self.smallest, self.largest, log=True),
            LEARNING_RATE: FloatDistribution(*self.learning_rate, log=True),
            **self.extra,
        }

    def describe(self) -> dict[str, Any]:
        """The space as JSON values, for the study's stamp; `from_description` reads it back."""
        sizes: dict[str, Any] = (
            {"low": self.smallest, "high": self.largest}
            if isinstance(self.batch_size, tuple)
            else {"choices": list(self.batch_size)}
        )
        return {
            BATCH_SIZE: sizes,
            LEARNING_RATE: {"low": self.learning_rate[0], "high": self.learning_rate[1]},
            "extra": {name: distribution_to_json(dist) for name, dist in sorted(self.extra.items())},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> SearchSpace:
        """The space that `describe` described."""
        sizes, rates = description[BATCH_SIZE], description[LEARNING_RATE]
        return cls(
            batch_size=list(sizes["choices"]) if "choices" in sizes else (sizes["low"], sizes["high"]),
            learning_rate=(rates["low"], rates["high"]),
            extra={name: json_to_distribution(text) for name, text in description["extra"].items()},
        )


def _to_unit(value: npt.ArrayLike, low: float, high: float) -> FloatArray:
    logs = np.log(np.asarray(value, dtype=float))
    return np.zeros_like(logs) if low == high else (logs - math.log(low)) / math.log(high / low)


def _middle(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    middle = math.sqrt(low * high) if distribution.log else (low + high) / 2
    if distribution.step:
        middle = low + round((middle - low) / distribution.step) * distribution.step
    return round(middle) if isinstance(distribution, IntDistribution) else middle


def shown_space(space: SearchSpace) -> str:
    """A space in a few words."""
    sizes = space.batch_size
    count = f"{len(sizes)} batch sizes" if isinstance(sizes, list) else "every batch size"
    low, high = space.learning_rate
    extra = f", {', '.join(space.extra)}" if space.extra else ""
    return f"{count} {space.smallest} to {space.largest}, learning rates {low:g} to {high:g}{extra}"
