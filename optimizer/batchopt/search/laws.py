"""What is known about batch sizes before anything is trained: laws with a source, and rules that are only priors.

Time to a target = steps needed, which belongs to model, data and optimizer, times seconds per step, which belongs to
the machine. All functions take numbers or arrays and work elementwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchopt.errors import InvalidInput
from batchopt.machine.step_time import FOLLOWED

FloatArray = npt.NDArray[np.float64]


ROUNDING = 1e-6
"""Of the steps at the largest batch size: a least number below this is nothing but rounding."""


def steps_to_target(batch_size: npt.ArrayLike, *, min_steps: float, critical_batch_size: float) -> FloatArray:
    """Optimizer steps needed to reach a target.

    Args:
        batch_size: examples per optimizer step, any shape.
        min_steps: needed however large the batch.
        critical_batch_size: where twice as many steps are needed, in examples.

    Returns:
        min_steps * (1 + critical_batch_size / batch_size), shape of `batch_size`.

    Raises:
        InvalidInput: a size that is not positive.

    Source: McCandlish et al. 2018, arXiv:1812.06162, equation 2.11.
    """
    return np.asarray(min_steps * (1.0 + critical_batch_size / _positive(batch_size, "batch_size")))


@dataclass(frozen=True)
class StepsLaw:
    """`steps_to_target` as fitted to measurements.

    Attributes:
        min_steps: needed however large the batch.
        critical_batch_size: where twice as many are needed, in examples.
        low, high: of the critical batch size, with each of the measurements left out in turn; `high` is None where
            steps do not level off without one of them, so that they set no upper bound.
        smallest, largest: of the batch sizes that were measured, in examples.
        worst: the largest distance of a measurement from the law, in parts of the law.
    """

    min_steps: float
    critical_batch_size: float
    low: float
    high: float | None
    smallest: float
    largest: float
    worst: float

    @property
    def followed(self) -> bool:
        """Whether the measurements follow the law, to a third."""
        return self.worst <= FOLLOWED

    def __call__(self, batch_size: npt.ArrayLike) -> FloatArray:
        """Steps to the target at a batch size."""
        return steps_to_target(batch_size, min_steps=self.min_steps, critical_batch_size=self.critical_batch_size)


def fitted_steps_law(batch_sizes: Sequence[float], steps: Sequence[float]) -> StepsLaw | None:
    """The law that measured steps follow best, by relative errors.

    Args:
        batch_sizes: in examples, each once, shape (sizes,).
        steps: to the target, shape (sizes,).

    Returns:
        None with fewer than three batch sizes, or where steps do not level off, so that nothing is known of the least.
    """
    if len(batch_sizes) < 3:
        return None
    sizes, needed = _positive(batch_sizes, "batch_size"), _positive(steps, "steps")
    whole = _fit(sizes, needed)
    if whole is None:
        return None
    parts = [_fit(np.delete(sizes, i), np.delete(needed, i)) for i in range(len(sizes))]
    criticals = [part[1] for part in parts if part is not None]
    law = steps_to_target(sizes, min_steps=whole[0], critical_batch_size=whole[1])
    return StepsLaw(
        *whole,
        low=min([whole[1], *criticals]),
        high=max(criticals) if len(criticals) == len(parts) else None,
        smallest=float(sizes.min()),
        largest=float(sizes.max()),
        worst=float(np.abs(needed / law - 1.0).max()),
    )


def _fit(sizes: FloatArray, steps: FloatArray) -> tuple[float, float] | None:
    """Least steps and critical batch size, both not negative; None where the least would be nothing."""
    # steps = a + b / size, each measurement weighted by its inverse; the corner of the feasible set where a or b is 0.
    design = np.stack([1.0 / steps, 1.0 / (sizes * steps)], axis=1)
    a, b = np.linalg.lstsq(design, np.ones(len(sizes)), rcond=None)[0]
    if a * sizes.max() <= ROUNDING * b:
        return None
    if b < 0:
        a, b = float(design[:, 0].sum() / (design[:, 0] ** 2).sum()), 0.0
    return float(a), float(b / a)


def fastest_batch_size(*, critical_batch_size: float, overhead_s: float, per_example_s: float) -> float:
    """The batch size of least time to a target: where overhead balances noise.

    Args:
        critical_batch_size: in examples.
        overhead_s: seconds per step, whatever the batch.
        per_example_s: seconds per example.

    Returns:
        sqrt(critical_batch_size * overhead_s / per_example_s), in examples; infinite where an example costs nothing.

    Source: the derivative of `steps_to_target` times (overhead_s + per_example_s * batch size), set to zero.
    """
    return math.inf if per_example_s == 0 else math.sqrt(critical_batch_size * overhead_s / per_example_s)


def gradient_noise_scale(sq_norm_small: float, sq_norm_big: float, *, small: int, big: int) -> float:
    """Batch size at which gradient noise equals gradient signal.

    Args:
        sq_norm_small: squared gradient norm averaged over batches of `small`, scalar.
        sq_norm_big: the same over batches of `big`.
        small, big: batch sizes, in examples.

    Returns:
        tr(Sigma) / |G|^2, in examples; infinite where no signal is left. Average the norms first: a mean of ratios is
        biased.

    Raises:
        InvalidInput: unless 0 < small < big.

    Source: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """
    if not 0 < small < big:
        raise InvalidInput(f"batch sizes {small} and {big}: give 0 < small < big.")
    signal = (big * sq_norm_big - small * sq_norm_small) / (big - small)
    noise = (sq_norm_small - sq_norm_big) / (1.0 / small - 1.0 / big)
    return noise / signal if signal > 0 else math.inf


def _positive(value: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(value, dtype=float)
    if not (array > 0).all():
        raise InvalidInput(f"{name} {value!r}: every one must be above 0.")
    return array
