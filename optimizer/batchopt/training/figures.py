"""The figures of an epoch by name: what Keras says of metrics, each number by one flat name."""

from __future__ import annotations

from typing import Any

import numpy as np

Figures = dict[str, float]
"""Metrics by Keras' names, `loss` first among them."""


def flat(figures: dict[str, Any]) -> dict[str, Any]:
    """Keras' metrics by one flat name each, `loss` first; those of several outputs, and each of a metric's numbers.

    An F1 score has one number for each class where nothing averages them: `f1_score/0`, `f1_score/1`.
    """
    result: dict[str, Any] = {}
    for name, value in figures.items():
        if not isinstance(value, dict):
            result |= _numbers(name, value)
    for name, nested in figures.items():
        if isinstance(nested, dict):
            result |= {f"{name}/{inner}": value for inner, value in flat(nested).items()}
    return {"loss": result.pop("loss"), **result} if "loss" in result else result


def _numbers(name: str, value: Any) -> dict[str, Any]:
    places = list(np.ndindex(*getattr(value, "shape", ())))
    if len(places) == 1:
        return {name: value[places[0]] if places[0] else value}
    return {f"{name}/{'/'.join(map(str, place))}": value[place] for place in places}
