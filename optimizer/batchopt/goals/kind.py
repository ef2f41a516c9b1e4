"""What every kind of goal says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from batchopt.question.goal import Goal
from batchopt.question.metric import Direction, Metric
from batchopt.search.view import View


@dataclass(frozen=True)
class Outcome:
    """What a trial that is over came to.

    Attributes:
        values: as Optuna keeps them; None where the trial missed what the goal asks for.
        spent_s, short_by: where it did, training seconds and the distance to the target.
        note: in a few words, for the screen; empty where the trial's state says it all.
        seconds_to_target: where there is a target and it was reached.
    """

    values: tuple[float, ...] | None
    spent_s: float = 0.0
    short_by: float = 0.0
    note: str = ""
    seconds_to_target: float | None = None


class Kind(ABC):
    """A kind of goal; made for the goal and the metric of one study.

    Attributes:
        in_seconds: whether one of a trial's values is seconds, so that they need the machine whose seconds count.
        prunes: whether Optuna's pruners can judge a trial by its last value.
        sees_scores: whether its view shows the search values such that more is better, whatever the metric's direction.
    """

    in_seconds: ClassVar[bool]
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

    @abstractmethod
    def view(self, seconds_per_epoch: Callable[[int], float] | None) -> View:
        """How the search sees trials; batch size -> seconds where it is another machine's whose seconds count."""

    @abstractmethod
    def outcome(self, curve: Mapping[int, float], seconds_per_epoch: float) -> Outcome:
        """What a trial came to.

        Args:
            curve: epoch -> validation metric, of all epochs that it was trained.
            seconds_per_epoch: of its batch size, on the machine whose seconds count; 0 unless `in_seconds`.
        """
