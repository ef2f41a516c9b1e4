"""The law of a machine's step times, alpha + beta B: how far it can be trusted, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from batchopt.measured import StepTime
from batchopt.search.laws import FOLLOWED, StepsLaw, fastest_batch_size, step_time_s


@dataclass(frozen=True)
class StepTimeFit:
    """Seconds per step = overhead + batch size times seconds per example, as fitted to measurements.

    Attributes:
        overhead_s: alpha, seconds per step whatever its size.
        overhead_low, overhead_high: the same, with each of the measurements left out in turn.
        per_example_s: beta, seconds per example.
        per_example_low, per_example_high: the same, with each of the measurements left out in turn.
        smallest, largest: of the batch sizes that were measured, in examples.
        worst: the largest distance of a measurement from the law, in parts of the law.
        followed: whether the measurements follow the law, to a third.
    """

    overhead_s: float
    overhead_low: float
    overhead_high: float
    per_example_s: float
    per_example_low: float
    per_example_high: float
    smallest: int
    largest: int
    worst: float
    followed: bool


def fitted_step_time(rows: Sequence[StepTime], train_examples: int) -> StepTimeFit | None:
    """The law that step times follow best, by relative errors; None with fewer than three batch sizes.

    Args:
        rows: a measurement for each batch size.
        train_examples: examples of an epoch.
    """
    # Not at the top: the numerics take a second to import.
    from batchopt.machine.step_time import StepTimeLaw

    if len(rows) < 3:
        return None
    whole = StepTimeLaw(rows, train_examples)
    parts = [StepTimeLaw([*rows[:at], *rows[at + 1 :]], train_examples) for at in range(len(rows))]
    overheads = [part.overhead_s for part in (whole, *parts)]
    per_examples = [part.per_example_s for part in (whole, *parts)]
    alpha, beta = whole.overhead_s, whole.per_example_s
    off = [abs(row.step_time_s / step_time_s(row.batch_size, overhead_s=alpha, per_example_s=beta) - 1) for row in rows]
    sizes = [row.batch_size for row in rows]
    worst = float(max(off))
    return StepTimeFit(
        overhead_s=alpha,
        overhead_low=min(overheads),
        overhead_high=max(overheads),
        per_example_s=beta,
        per_example_low=min(per_examples),
        per_example_high=max(per_examples),
        smallest=min(sizes),
        largest=max(sizes),
        worst=worst,
        followed=worst <= FOLLOWED,
    )


def fastest_by_laws(steps: StepsLaw | None, step_time: StepTimeFit | None) -> float | None:
    """The batch size of least time to the target, where steps to it times seconds per step are least, in examples.

    Returns:
        None where one of the laws is missing or not followed, or where larger is always faster.
    """
    if steps is None or step_time is None or not (steps.followed and step_time.followed):
        return None
    least = fastest_batch_size(
        critical_batch_size=steps.critical_batch_size,
        overhead_s=step_time.overhead_s,
        per_example_s=step_time.per_example_s,
    )
    return least if math.isfinite(least) and least > 0 else None
