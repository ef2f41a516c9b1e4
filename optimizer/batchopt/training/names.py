"""Names of metrics that have none of their own, the same for each model that a process builds.

Keras numbers them as they come: the first model of a process has `auc`, the next one `auc_1`. A script that is run once
never sees that. A worker builds a model for each trial, and all of them are asked for `auc`, as are their callbacks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.utils.naming import to_snake_case


def number_metrics_anew() -> None:
    """Have metrics counted as before the first model; layers are counted on, as models may share some."""
    counted, before = _counted(), _counted_first()
    layers = {to_snake_case(layer.__name__) for layer in _subclasses(keras.Layer)}
    for name in {to_snake_case(metric.__name__) for metric in _subclasses(keras.Metric)} - layers:
        counted.pop(name, None)
        if name in before:
            counted[name] = before[name]


def _counted() -> dict[str, int]:
    """How often Keras has given each name."""
    counted: dict[str, int] | None = global_state.get_global_attribute("object_name_uids")
    return {} if counted is None else counted


@functools.cache
def _counted_first() -> dict[str, int]:
    return dict(_counted())


def _subclasses(of: type[Any]) -> Iterator[type[Any]]:
    for kind in of.__subclasses__():
        yield kind
        yield from _subclasses(kind)
