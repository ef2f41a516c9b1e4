"""What every kind of goal says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from batchopt.machine.energy import Power, Price
from batchopt.question.goal import Goal
from batchopt.question.metric import Direction, Metric
from batchopt.search.view import View

CostUnit = Literal["", "s", "J"]


@dataclass(frozen=True)
class Outcome:
    """What a trial that is over came to.

    Attributes:
        values: as Optuna keeps them; None where the trial missed what the goal asks for.
        spent, short_by: where it did, what its training cost and the distance to the target.
        note: in a few words, for the screen; empty where the trial's state says it all.
        cost_to_target: where there is a target and it was reached.
    """

    values: tuple[float, ...] | None
    spent: float = 0.0
    short_by: float = 0.0
    note: str = ""
    cost_to_target: float | None = None


def of_time(batch_size: int) -> float:
    """What a second costs where time itself is the cost."""
    return 1.0


class Kind(ABC):
    """A kind of goal; made for the goal and the metric of one study.

    Attributes:
        cost_unit: of what an epoch costs, `s` or `J`, where one of a trial's values counts that, so that it needs the
            machine whose epochs count; empty where none does.
        prunes: whether Optuna's pruners can judge a trial by its last value.
        sees_scores: whether its view shows the search values such that more is better, whatever the metric's direction.
    """

    cost_unit: ClassVar[CostUnit]
    prunes: ClassVar[bool]
    sees_scores: ClassVar[bool] = False

    def __init__(self, goal: Goal, metric: Metric) -> None:
        self.goal = goal
        self.metric = metric

    @property
    @abstractmethod
    def directions(self) -> tuple[Direction, ...]:
        """Of a trial's values, as Optuna has them."""

    @property
    @abstractmethod
    def value_names(self) -> tuple[str, ...]:
        """What they are called."""

    @abstractmethod
    def words(self) -> str:
        """The goal in a few words."""

    def price(self, power: Power) -> Price:
        """What a second of training costs on a machine that draws so much, in `cost_unit`, by batch size."""
        return of_time

    def lacking(self, machine: str, no_energy: str, max_power_w: float | None) -> str:
        """Why a machine cannot tell what the goal counts, and what to do, in a line; empty where it can.

        Args:
            machine: its name.
            no_energy: why it tells no energy; empty where it does.
            max_power_w: the most that it may draw; None where it does not say.
        """
        return ""

    def reached(self, cost: float) -> str:
        """What is said of a trial that got to the target at such a cost; empty where there is none."""
        return ""

    @abstractmethod
    def view(self, seconds_per_epoch: Callable[[int], float] | None, power: Power) -> View:
        """How the search sees trials.

        Args:
            seconds_per_epoch: batch size -> seconds, where it is another machine's whose epochs count; else None.
            power: of the machine whose epochs count.
        """

    @abstractmethod
    def outcome(self, curve: Mapping[int, float], cost_per_epoch: float) -> Outcome:
        """What a trial came to.

        Args:
            curve: epoch -> validation metric, of all epochs that it was trained.
            cost_per_epoch: of its batch size, on the machine whose epochs count; 0 without a `cost_unit`.
        """
