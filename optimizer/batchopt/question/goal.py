"""A study's goal: what is best."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from batchopt.checked import check_types
from batchopt.errors import InvalidInput
from batchopt.question.metric import Metric
from batchopt.question.task import MOST_EPOCHS

GoalKind = Literal["best", "time", "pareto", "energy"]
GOALS: tuple[GoalKind, ...] = get_args(GoalKind)

TO_TARGET: tuple[GoalKind, ...] = ("time", "energy")
"""Goals that end at a target."""

Prefer = Literal["balanced", "best", "fastest"]
PREFERENCES: tuple[Prefer, ...] = get_args(Prefer)
"""What is recommended: the fastest that is most likely as good as the best; the best, whatever it takes; the fastest
that is as good with even odds."""

Counts = Literal["last", "best"]
"""Which of its epochs a trial counts by."""


@dataclass(frozen=True)
class Goal:
    """What is best.

    Attributes:
        kind: `best`, the best validation metric after `epochs` epochs; `time`, the least training time until it reaches
            `target`; `pareto`, the metric after `epochs` epochs against the training time of these; `energy`, the least
            energy until it reaches `target`.
        epochs: passes over the training data that a whole trial gets; for a target, at most.
        target: for `time` and `energy`, the validation metric to be reached, in its units; an accuracy is in 0 to 1.
        value: which epoch a trial counts by: its `last`, or its `best`, as one that keeps the best weights would want.
        energy_weight: for `energy`, how much energy counts against time, in 0 to 1: of Zeus' cost, in joules, which is
            energy_weight * energy + (1 - energy_weight) * maximum power * time. 1 where None; None for other goals.

    Raises:
        InvalidInput: naming what is wrong and what to write.
    """

    kind: GoalKind = "best"
    epochs: int = 5
    target: float | None = None
    value: Counts = "last"
    energy_weight: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in GOALS:
            raise InvalidInput(f"goal {self.kind!r} is unknown. Use {', '.join(GOALS[:-1])} or {GOALS[-1]}.")
        whole = isinstance(self.epochs, int) and not isinstance(self.epochs, bool)
        if not whole or not 1 <= self.epochs <= MOST_EPOCHS:
            raise InvalidInput(f"epochs {self.epochs!r}: give a whole number of at least 1.")
        check_types(self)
        if self.value not in get_args(Counts):
            raise InvalidInput(f"value {self.value!r}: a trial counts by its 'last' or its 'best' epoch.")
        if self.kind in TO_TARGET and self.value == "best":
            raise InvalidInput(f"value 'best' is not for goal {self.kind}: a trial ends at the target. Leave it out.")
        if self.kind in TO_TARGET and self.target is None:
            raise InvalidInput(
                f"goal {self.kind} needs a target: the validation metric to be reached, for example 0.97 "
                "(--target 0.97)."
            )
        if self.kind not in TO_TARGET and self.target is not None:
            raise InvalidInput(
                f"target {self.target:g} is for goals time and energy, and this is {self.kind}. Leave one of them out."
            )
        if self.kind != "energy" and self.energy_weight is not None:
            raise InvalidInput(
                f"energy weight {self.energy_weight:g} is for goal energy, and this is {self.kind}. Leave it out."
            )
        if self.energy_weight is not None and not 0 <= self.energy_weight <= 1:
            raise InvalidInput(f"energy weight {self.energy_weight:g}: give 0, for time alone, to 1, for energy alone.")
        if self.kind == "energy":
            # 0 and 1 are the same question however they are written.
            object.__setattr__(self, "energy_weight", 1.0 if self.energy_weight is None else float(self.energy_weight))
        if self.target is not None and not math.isfinite(self.target):
            raise InvalidInput(f"target {self.target:g}: give a number.")

    def changed(
        self,
        kind: GoalKind | None,
        target: float | None,
        epochs: int | None = None,
        energy_weight: float | None = None,
    ) -> Goal:
        """This goal with what is named changed; a target stays where the goal has one, a weight where the kind does.

        Raises:
            InvalidInput: they do not belong together.
        """
        kind = kind or self.kind
        kept = self.target if kind in TO_TARGET else None
        weight = self.energy_weight if kind == self.kind else None
        return Goal(
            kind,
            epochs=self.epochs if epochs is None else epochs,
            target=kept if target is None else target,
            value="last" if kind in TO_TARGET else self.value,
            energy_weight=weight if energy_weight is None else energy_weight,
        )

    def counted(self, curve: Mapping[int, float], metric: Metric) -> float:
        """What a trial counts by, of epoch -> metric."""
        return metric.best(curve.values()) if self.value == "best" else curve[max(curve)]

    def describe(self) -> dict[str, Any]:
        """The goal as JSON values, for the study's stamp."""
        told = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        # Studies of earlier versions do not say it.
        return told if self.value != "last" else {name: value for name, value in told.items() if name != "value"}
