"""The goal `time`: the least training time until the validation metric is at a target."""

from __future__ import annotations

from batchopt.goals.to_target import ToTargetKind
from batchopt.words import SECOND, Unit, compared, shown_seconds, shown_seconds_interval


class Time(ToTargetKind):
    """The least training time to a target."""

    cost_unit = "s"
    value_names = ("seconds_to_target",)
    least = "time"
    to_be_less, is_less, less = "be sooner", "gets there sooner", "sooner"

    def shown(self, cost: float) -> str:
        return shown_seconds(cost)

    def shown_interval(self, low: float, high: float) -> str:
        return shown_seconds_interval(low, high)

    def unit(self, largest: float) -> Unit:
        return SECOND

    def expected(self, cost: float, low: float, high: float, seconds: float) -> str:
        return f"after {self.shown(cost)} of training (90 % interval {self.shown_interval(low, high)})"

    def compared(self, cost: float, other: float, than: str = "") -> str:
        return compared(cost, other) + (than and f" as {than}")
