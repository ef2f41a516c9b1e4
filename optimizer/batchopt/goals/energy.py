"""The goal `energy`: the least energy until the validation metric is at a target, or that and time, traded off."""

from __future__ import annotations

from batchopt.goals.to_target import ToTargetKind
from batchopt.machine.energy import Power, Price, zeus_price
from batchopt.question.goal import Goal
from batchopt.question.metric import Metric
from batchopt.words import Unit, energy_unit, less_or_more, shown_energy, shown_energy_interval, shown_seconds


class Energy(ToTargetKind):
    """The least energy to a target; with a weight below 1, Zeus' cost of energy and time, in joules too."""

    cost_unit = "J"

    def __init__(self, goal: Goal, metric: Metric) -> None:
        super().__init__(goal, metric)
        assert goal.energy_weight is not None
        self.weight = goal.energy_weight
        alone = self.weight == 1
        self.least = "energy" if alone else f"cost, energy weighted {self.weight:g},"
        self.to_be_less, self.is_less = ("draw less", "draws less") if alone else ("cost less", "costs less")
        self.less = "less" if alone else "cheaper"

    @property
    def value_names(self) -> tuple[str, ...]:
        return ("joules_to_target" if self.weight == 1 else "cost_joules_to_target",)

    def price(self, power: Power) -> Price:
        return zeus_price(power, self.weight)

    def lacking(self, machine: str, no_energy: str, max_power_w: float | None) -> str:
        if no_energy:
            return f"goal energy: {machine} tells no energy: {no_energy}. Use --goal time."
        if self.weight < 1 and not max_power_w:
            return (
                f"--energy-weight {self.weight:g}: {machine} does not say how much power it may draw, by which time is "
                "counted in joules. Use --energy-weight 1, energy alone."
            )
        return ""

    def shown(self, cost: float) -> str:
        return shown_energy(cost)

    def shown_interval(self, low: float, high: float) -> str:
        return shown_energy_interval(low, high)

    def unit(self, largest: float) -> Unit:
        return energy_unit(largest)

    def heading(self, unit: Unit) -> str:
        return super().heading(unit) if self.weight == 1 else f"cost in {super().heading(unit)}"

    def reached(self, cost: float) -> str:
        return f"target with {self.shown(cost)}" if self.weight == 1 else f"target at a cost of {self.shown(cost)}"

    def expected(self, cost: float, low: float, high: float, seconds: float) -> str:
        needed = f"with {self.shown(cost)}" if self.weight == 1 else f"at a cost of {self.shown(cost)}"
        return f"{needed} (90 % interval {self.shown_interval(low, high)}), in {shown_seconds(seconds)} of training"

    def compared(self, cost: float, other: float, than: str = "") -> str:
        return less_or_more(cost, other, "energy" if self.weight == 1 else "cost", than)
