"""Seconds per step and per epoch at any batch size, from probed ones; no TensorFlow here.

Between probed sizes, seconds per step are interpolated in the logarithms of both, where an affine law is nearly a
straight line and a processor's preference for some sizes is not smoothed away. The affine law itself, alpha + beta B,
is kept for what it says: alpha is what a step costs however small it is, and at the knee, alpha / beta, a batch is
large enough for half of the throughput that the device can reach.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchopt.measured import StepTime

FOLLOWED = 1 / 3
"""Measurements farther than this from a law, in parts of it, are said not to follow it."""


class StepTimeLaw:
    """Step times of one program on one machine.

    Args:
        rows: probed, at least one.
        train_examples: examples of an epoch.
        at_once: batch size -> how many of its examples a step takes at once; a batch of more takes as much longer.

    Attributes:
        overhead_s: alpha, seconds per step whatever its size.
        per_example_s: beta, seconds per example.
    """

    def __init__(
        self, rows: Sequence[StepTime], train_examples: int, at_once: Callable[[int], int] = lambda size: size
    ) -> None:
        # Not at the top: it costs half a second, and most commands have no use for it.
        from scipy.optimize import isotonic_regression, nnls

        ordered = sorted(rows, key=lambda row: row.batch_size)
        self._train_examples = train_examples
        self._at_once = at_once
        self._log_sizes = np.log([row.batch_size for row in ordered])
        # A larger batch never takes less time; where a timing says so it is noise.
        self._log_seconds = isotonic_regression(np.log([row.step_time_s for row in ordered])).x
        self._epoch_overhead_s = statistics.median(row.epoch_overhead_s for row in ordered)
        sizes = np.exp(self._log_sizes)
        seconds = np.exp(self._log_seconds)
        scaled = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
        self.overhead_s, self.per_example_s = nnls(scaled, np.ones(len(sizes)))[0].tolist()
        self._live: dict[int, list[float]] = defaultdict(list)

    @property
    def knee(self) -> float | None:
        """The batch size that reaches half of the throughput there is; None where one of the two was not seen."""
        return self.overhead_s / self.per_example_s if self.overhead_s > 0 and self.per_example_s > 0 else None

    def step_time_s(self, batch_size: int) -> float:
        """Seconds per step, as probed; beyond the probed sizes it goes on as at the nearest two, but never falls."""
        at_once = self._at_once(batch_size)
        return batch_size / at_once * self._at(at_once)

    def _at(self, batch_size: int) -> float:
        """Of a batch whose examples are taken all at once."""
        x = float(np.log(batch_size))
        if len(self._log_sizes) == 1:
            return float(np.exp(self._log_seconds[0]) * batch_size / np.exp(self._log_sizes[0]))
        if self._log_sizes[0] <= x <= self._log_sizes[-1]:
            return float(np.exp(np.interp(x, self._log_sizes, self._log_seconds)))
        at, beside = (0, 1) if x < self._log_sizes[0] else (-1, -2)
        slope = (self._log_seconds[at] - self._log_seconds[beside]) / (self._log_sizes[at] - self._log_sizes[beside])
        return float(np.exp(self._log_seconds[at] + slope * (x - self._log_sizes[at])))

    def probed_epoch_s(self, batch_size: int) -> float:
        """Seconds per epoch as the probe alone foretells them: whole steps, the partial one, what an epoch adds."""
        whole, rest = divmod(self._train_examples, batch_size)
        seconds = whole * self.step_time_s(batch_size) + self._epoch_overhead_s
        return seconds + (self.step_time_s(rest) if rest else 0.0)

    def __call__(self, batch_size: int) -> float:
        """Seconds per epoch, the probe's corrected by the epochs that were trained since."""
        return self.probed_epoch_s(batch_size) * self._correction(batch_size)

    def tell(self, batch_size: int, seconds: float) -> None:
        """An epoch was trained, with the machine to itself.

        Args:
            batch_size: its batch size.
            seconds: what it took, on the training clock.
        """
        if seconds > 0:
            self._live[batch_size].append(seconds)

    def _correction(self, batch_size: int) -> float:
        """Measured over probed seconds at the sizes that were trained, interpolated between them."""
        if not self._live:
            return 1.0
        sizes = sorted(self._live)
        ratios: npt.NDArray[np.float64] = np.log(
            [statistics.median(self._live[size]) / self.probed_epoch_s(size) for size in sizes]
        )
        return float(np.exp(np.interp(np.log(batch_size), np.log(sizes), ratios)))


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
    if len(rows) < 3:
        return None
    whole = StepTimeLaw(rows, train_examples)
    parts = [StepTimeLaw([*rows[:at], *rows[at + 1 :]], train_examples) for at in range(len(rows))]
    overheads = [part.overhead_s for part in (whole, *parts)]
    per_examples = [part.per_example_s for part in (whole, *parts)]
    alpha, beta = whole.overhead_s, whole.per_example_s
    off = [abs(row.step_time_s / (alpha + beta * row.batch_size) - 1) for row in rows]
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
