"""What a device draws: its meter, and watts at any batch size from the epochs that were metered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from batchopt.machine.gpu import Meter
from batchopt.machine.processor_energy import ProcessorMeter

Counter = Literal["", "NVML", "RAPL"]
"""What counts a machine's energy; empty where nothing does."""

WHAT_IS_COUNTED = {
    "NVML": "of the GPU alone (NVML): what the processor draws is not in it, what others do on that GPU is",
    "RAPL": "of all packages of the processor (RAPL), whoever works on them; epochs side by side with another worker's "
    "are left out",
}


class EnergyMeter(Protocol):
    """Counts what a device draws."""

    def joules(self) -> float | None:
        """Energy since some moment; None where the device does not tell."""

    def max_power_w(self) -> float | None:
        """The most that it may draw, in watts; None where it does not say."""

    def lacking(self) -> str:
        """Why it tells no energy, in a phrase; empty where it does."""


def energy_meter(card: int | None, *, watched: bool = True) -> EnergyMeter:
    """The meter of what trains: of a GPU, as this process numbers them, or of the processor where None.

    `watched` as for `ProcessorMeter`.
    """
    return ProcessorMeter(watched=watched) if card is None else Meter(card)


def counter_of(card: int | None) -> Counter:
    """What counts the energy of a GPU, or of the processor where None."""
    return "RAPL" if card is None else "NVML"


class Power:
    """What one machine draws while it trains one program, by batch size.

    Watts are all joules over all seconds of a size: counters tick ten times a second or less, and of epochs that are
    shorter than that the median would be none, or one tick too many. Between two sizes they are interpolated in the
    logarithms of both; beyond the last one they stay.

    Args:
        max_w: the most that the device may draw; None where it does not say.
    """

    def __init__(self, max_w: float | None = None) -> None:
        self.max_w = max_w
        self._told: dict[int, tuple[float, float]] = {}

    def tell(self, batch_size: int, joules: float | None, seconds: float) -> None:
        """An epoch was trained; what was not metered, or not timed, says nothing."""
        if joules is not None and joules >= 0 and seconds > 0:
            before, for_s = self._told.get(batch_size, (0.0, 0.0))
            # In one piece: another thread may ask just then.
            self._told[batch_size] = (before + joules, for_s + seconds)

    @property
    def known(self) -> bool:
        """Whether any energy was metered."""
        return any(joules > 0 for joules, _ in list(self._told.values()))

    def __call__(self, batch_size: int) -> float:
        """Watts at a batch size; 1 before anything was metered, so that what is compared is time."""
        told = sorted((size, joules / seconds) for size, (joules, seconds) in list(self._told.items()) if joules > 0)
        if not told:
            return 1.0
        sizes, watts = zip(*told, strict=True)
        return math.exp(float(np.interp(math.log(batch_size), np.log(sizes), np.log(watts))))


Price = Callable[[int], float]
"""Batch size -> what a second of training costs there."""


def zeus_price(power: Power, weight: float) -> Price:
    """What a second of training costs, in joules: energy and time, traded off.

    cost = weight * energy + (1 - weight) * maximum power * time, which is linear in time: per second it is
    weight * watts + (1 - weight) * maximum power.

    Args:
        power: of the machine; its maximum is needed where `weight` is below 1.
        weight: eta of the paper, 0 for time alone, 1 for energy alone.

    Source: You, Chung and Chowdhury 2023, Zeus: Understanding and Optimizing GPU Energy Consumption of DNN Training,
    NSDI '23, arXiv:2208.06102, equation 2.
    """
    assert weight == 1 or power.max_w is not None
    time_part = (1.0 - weight) * (power.max_w or 0.0)
    return lambda batch_size: weight * power(batch_size) + time_part
