"""Which way a metric is better.

Told by what the metric is, whatever it is called; by its name only where that does not tell: a function of the user's.
"""

from __future__ import annotations

import re
from typing import Any

from batchopt.errors import ModelError
from batchopt.question.metric import Direction, named_direction
from batchopt.question.task import Task


def direction_of(model: Any, task: Task) -> Direction:
    """Which way a task's metric is better.

    Args:
        model: compiled, its metrics built.
        task: whose `direction` goes first.

    Raises:
        ModelError: nothing tells; saying what to write.
    """
    if task.direction is not None:
        return task.direction
    lesser = _is_lesser(model, task.metric)
    if lesser is not None:
        return "minimize" if lesser else "maximize"
    named = named_direction(task.metric)
    if named is None:
        raise ModelError(
            f"Task(metric={task.metric!r}): its name does not tell whether more or less of it is better. Add "
            "direction='maximize' or direction='minimize' to the Task."
        )
    return named


def _is_lesser(model: Any, name: str) -> bool | None:
    """By the metric's class: Keras' own errors, and means of what is a loss of Keras'; None where it does not tell."""
    import keras

    # Of a metric with a number for each class, one of them.
    name = re.sub(r"/\d+$", "", name)
    named = [metric for metric in _metrics(model) if f"/{name}".replace("/", "_").endswith(f"_{metric.name}")]
    if not named:
        return None
    # Keras puts an output's name before a metric's own.
    metric = max(named, key=lambda metric: len(metric.name))
    function = getattr(metric, "_fn", None)
    counts = (keras.metrics.FalsePositives, keras.metrics.FalseNegatives, keras.metrics.RootMeanSquaredError)
    losses_of_keras = keras.losses.mean_squared_error.__module__
    if isinstance(metric, counts) or isinstance(function, keras.losses.Loss):
        return True
    if function is not None:
        return True if getattr(function, "__module__", None) == losses_of_keras else None
    # One of Keras' own that is no mean: AUC, R2 and the like.
    own = type(metric).__module__.startswith("keras.") and not isinstance(metric, keras.metrics.Mean)
    return False if own else None


def _metrics(model: Any) -> list[Any]:
    """All metrics, those in Keras' container of the compiled ones included."""
    found = []
    for metric in model.metrics:
        found += list(getattr(metric, "metrics", [])) or [metric]
    return found
