"""The figures of an epoch by name: what Keras says of metrics, each number by one flat name."""

from __future__ import annotations

from collections.abc import Mapping
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


def loss_of(figures: Mapping[str, float]) -> float | None:
    """The loss among a model's figures: `loss`, as Keras calls it, or what steps of a user's own return in its place.

    That is `total_loss`, or the one figure whose name ends in "loss"; None where that does not tell.
    """
    ending = [name for name in figures if name.lower().endswith("loss")]
    named = next((name for name in ("loss", "total_loss") if name in figures), None)
    named = named or (ending[0] if len(ending) == 1 else None)
    return None if named is None else figures[named]
