"""Every kind of goal by its name; a new one is a file beside this one, and an entry here and in `question/goal.py`."""

from __future__ import annotations

from batchopt.goals.best import Best
from batchopt.goals.energy import Energy
from batchopt.goals.kind import Kind
from batchopt.goals.pareto import Pareto
from batchopt.goals.time import Time
from batchopt.question.goal import Goal, GoalKind
from batchopt.question.metric import Metric

KINDS: dict[GoalKind, type[Kind]] = {"best": Best, "time": Time, "pareto": Pareto, "energy": Energy}


def kind_of(goal: Goal, metric: Metric) -> Kind:
    """What a study's goal asks for of its metric."""
    return KINDS[goal.kind](goal, metric)
