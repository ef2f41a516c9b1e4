"""Every kind of goal by its name; a new one is a file beside this one, and an entry here and in `question/goal.py`."""

from __future__ import annotations

from batchopt.goals.accuracy import Accuracy
from batchopt.goals.kind import Kind
from batchopt.goals.pareto import Pareto
from batchopt.goals.time import Time
from batchopt.question.goal import Goal, GoalKind

KINDS: dict[GoalKind, type[Kind]] = {"accuracy": Accuracy, "time": Time, "pareto": Pareto}


def kind_of(goal: Goal) -> Kind:
    """What a study's goal asks for."""
    return KINDS[goal.kind](goal)
