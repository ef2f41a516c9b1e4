"""The goal `accuracy`: the highest validation metric after all epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batchopt.goals.kind import Kind, Outcome
from batchopt.search.view import View
from batchopt.words import counted


class Accuracy(Kind):
    """The highest validation metric after all epochs."""

    directions = ("maximize",)
    value_names = ("validation_accuracy",)
    in_seconds = False
    prunes = True

    def words(self) -> str:
        epochs = counted(self.goal.epochs, "epoch")
        return f"best accuracy within {epochs}" if self.goal.value == "best" else f"accuracy after {epochs}"

    def view(self, seconds_per_epoch: Callable[[int], float] | None) -> View:
        return View()

    def outcome(self, curve: Mapping[int, float], seconds_per_epoch: float) -> Outcome:
        return Outcome((self.goal.counted(curve),))
