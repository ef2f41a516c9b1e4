"""The goal `best`: the best validation metric after all epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batchopt.goals.kind import Kind, Outcome
from batchopt.machine.energy import Power
from batchopt.question.metric import Direction
from batchopt.search.view import View
from batchopt.words import counted


class Best(Kind):
    """The best validation metric after all epochs."""

    cost_unit = ""
    prunes = True

    @property
    def directions(self) -> tuple[Direction, ...]:
        return (self.metric.direction,)

    @property
    def value_names(self) -> tuple[str, ...]:
        return (self.metric.key,)

    def words(self) -> str:
        epochs = counted(self.goal.epochs, "epoch")
        return (
            f"best {self.metric.title} within {epochs}"
            if self.goal.value == "best"
            else f"{self.metric.title} after {epochs}"
        )

    def view(self, seconds_per_epoch: Callable[[int], float] | None, power: Power) -> View:
        return View()

    def outcome(self, curve: Mapping[int, float], cost_per_epoch: float) -> Outcome:
        return Outcome((self.goal.counted(curve, self.metric),))
