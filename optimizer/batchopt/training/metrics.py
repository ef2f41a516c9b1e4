"""Metrics of which less is better, which a study that looks for more would make worse.

Told by what the metric is, whatever it is called; by its name only where that does not tell: a function of the user's.
"""

from __future__ import annotations

import re
from typing import Any

from batchopt.errors import ModelError

LESS_IS_BETTER = re.compile(
    r"(^|_|/)(loss|error|mae|mse|mape|msle|rmse|rmsle|smape|wape|nll|log_?loss|crossentropy|hinge|divergence|poisson|"
    r"huber|log_?cosh|brier\w*|distance|false_\w+|perplexity|wer|cer)(_\d+)?$",
    re.IGNORECASE,
)
"""Such names, as Keras and others have them."""

NEGATIVE = re.compile(r"(^|_|/)(neg|negative|minus)_", re.IGNORECASE)
"""What has been turned round."""


def refuse_less_is_better(model: Any, name: str) -> None:
    """Refuse a metric of which less is better.

    Args:
        model: compiled, its metrics built.
        name: of the metric, as in Keras' logs.

    Raises:
        ModelError: saying what to name instead.
    """
    lesser = _is_lesser(model, name)
    if lesser is None:
        lesser = bool(LESS_IS_BETTER.search(name)) and not NEGATIVE.search(name)
    if lesser:
        raise ModelError(
            f"Task(metric={name!r}): less of it is better, and a study looks for more. Compile the model with a metric "
            "of which more is better, such as accuracy, auc or r2_score, or with a function neg_... that returns the "
            "negative, and name that."
        )


def _is_lesser(model: Any, name: str) -> bool | None:
    """By the metric's class: Keras' own errors, and means of what is a loss of Keras'; None where it does not tell."""
    import keras

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
