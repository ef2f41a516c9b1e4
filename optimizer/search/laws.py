"""What is known about batch sizes before anything is trained: laws with a source, and rules that are only priors.

Time to a target = steps needed, which belongs to model, data and optimizer, times seconds per step, which belongs to
the machine. All functions take numbers or arrays and work elementwise.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from optimizer.errors import InvalidInput

FloatArray = npt.NDArray[np.float64]
ScalingRule = Literal["linear", "sqrt", "none"]

SCALING_EXPONENTS: dict[ScalingRule, float] = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
"""a in `rate ~ batch size ** a`: linear for SGD (Goyal et al. 2017, arXiv:1706.02677), square root for Adam (Malladi
et al. 2022, arXiv:2205.10287). Adam's best rate can fall again at large batches (arXiv:2405.14578): a prior, no law."""


def scaled_learning_rate(
    base_learning_rate: float, batch_size: npt.ArrayLike, *, reference_batch_size: int, rule: ScalingRule
) -> FloatArray:
    """The learning rate that a scaling rule expects at a batch size.

    Args:
        base_learning_rate: as applied at the reference batch size.
        batch_size: examples per optimizer step, any shape.
        reference_batch_size: in examples.
        rule: `linear`, `sqrt` or `none`.

    Returns:
        Learning rates, as applied; shape of `batch_size`.

    Raises:
        InvalidInput: an unknown rule, or a size that is not positive.

    Source: see `SCALING_EXPONENTS`.
    """
    if rule not in SCALING_EXPONENTS:
        raise InvalidInput(f"scaling rule {rule!r} is unknown. Choose from {', '.join(SCALING_EXPONENTS)}.")
    sizes = _positive(batch_size, "batch_size") / _positive(reference_batch_size, "reference_batch_size")
    return np.asarray(base_learning_rate * sizes ** SCALING_EXPONENTS[rule])


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


def step_time_s(batch_size: npt.ArrayLike, *, overhead_s: float, per_example_s: float) -> FloatArray:
    """Seconds per optimizer step: a fixed overhead, and so much for each example; shape of `batch_size`."""
    return np.asarray(overhead_s + per_example_s * _positive(batch_size, "batch_size"))


def time_to_target_s(
    batch_size: npt.ArrayLike,
    *,
    min_steps: float,
    critical_batch_size: float,
    overhead_s: float,
    per_example_s: float,
) -> FloatArray:
    """Training seconds to a target: `steps_to_target` times `step_time_s`; shape of `batch_size`.

    Source: Shallue et al. 2018, arXiv:1811.03600.
    """
    steps = steps_to_target(batch_size, min_steps=min_steps, critical_batch_size=critical_batch_size)
    return np.asarray(steps * step_time_s(batch_size, overhead_s=overhead_s, per_example_s=per_example_s))


def fastest_batch_size(*, critical_batch_size: float, overhead_s: float, per_example_s: float) -> float:
    """The batch size of least time to a target: where overhead balances noise.

    Args:
        critical_batch_size: in examples.
        overhead_s: seconds per step, whatever the batch.
        per_example_s: seconds per example.

    Returns:
        sqrt(critical_batch_size * overhead_s / per_example_s), in examples; infinite where an example costs nothing.

    Source: the derivative of `time_to_target_s` set to zero.
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
