"""Names that Keras gives by itself, the same for each model that a process builds.

Keras numbers layers and metrics as they come: the first model of a process has `dense` and `auc`, the next one has
`dense_1` and `auc_1`. A script that is run once never sees that, and freezes `dense_2`, or asks for `auc`. A worker
builds a model for each trial, and all of them are to be what that script has.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.utils.naming import to_snake_case

_most: dict[str, int] = {}
"""How often each name was given at the most."""


def named_anew(build: Callable[[], Any]) -> Any:
    """What `build` makes with names that are counted as before the first model; a module's own layers have theirs."""
    number_anew()
    try:
        return build()
    except ValueError as error:
        if "unique" not in str(error):
            raise
    # A layer that was kept from an earlier model has its name still.
    number_anew()
    metrics = {to_snake_case(metric.__name__) for metric in _subclasses(keras.Metric)}
    metrics -= {to_snake_case(layer.__name__) for layer in _subclasses(keras.Layer)}
    _counted().update({name: count for name, count in _most.items() if name not in metrics})
    return build()


def number_anew() -> None:
    """Have names counted as before the first model."""
    counted, before = _counted(), _counted_first()
    for name, count in counted.items():
        _most[name] = max(count, _most.get(name, 0))
    counted.clear()
    counted.update(before)


def _counted() -> dict[str, int]:
    """How often Keras has given each name."""
    counted: dict[str, int] | None = global_state.get_global_attribute("object_name_uids")
    if counted is None:
        counted = defaultdict(int)
        global_state.set_global_attribute("object_name_uids", counted)
    return counted


@functools.cache
def _counted_first() -> dict[str, int]:
    return dict(_counted())


def _subclasses(of: type[Any]) -> Iterator[type[Any]]:
    for kind in of.__subclasses__():
        yield kind
        yield from _subclasses(kind)
