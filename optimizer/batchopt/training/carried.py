"""What callbacks have come to, carried to another process without pickle: plain values, as JSON and arrays.

Callbacks keep their state in attributes, and Keras knows no other form of it. Where each attribute is a plain value, or
something that has no state (a function that captures nothing that changes), what a callback has come to is these
values: another one that was made the same way goes on with them. Anything else (a file, a variable) cannot be carried.
"""

from __future__ import annotations

import json
import pathlib
import re
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[Any]]

SET_BY_KERAS = ("_model", "params")
"""Attributes that `set_model` and `set_params` give."""

SET_LATE = ("monitor_op", "min_delta")
"""Of callbacks that monitor a figure: made of what they were given, at the first epoch's end, and then anew."""

NAME = re.compile(r"[\w @-]+")
"""Of a figure among logs; a path has dots or slashes."""

MOST_BYTES = 16 << 20
"""Of arrays of callbacks, beside four times the model's own: more is data that was given to one, and no state."""


class _NotPlain(Exception):
    """A value that cannot be carried."""


def carried(callbacks: Sequence[Any], model_bytes: int) -> Arrays | None:
    """The state of callbacks as arrays, the first of which is JSON; None where it cannot be carried.

    Args:
        callbacks: after an epoch.
        model_bytes: of all that a model's training holds.
    """
    arrays: Arrays = []
    try:
        told = [
            {name: _told(value, arrays) for name, value in _attributes(callback).items() if not _stateless(value)}
            for callback in callbacks
        ]
    except _NotPlain:
        return None
    if sum(array.nbytes for array in arrays) > MOST_BYTES + 4 * model_bytes:
        return None
    return [np.frombuffer(json.dumps(told).encode(), np.uint8), *arrays]


def carry_on(callbacks: Sequence[Any], kept: Arrays) -> bool:
    """Have callbacks that were made the same way go on from a state; False where it is not one of theirs.

    Text stays as the new ones have it, in lists and dictionaries too, where only keys that are names of figures may be
    new: what lies in a database is to choose no file to write to.
    """
    told = json.loads(kept[0].tobytes())
    if len(told) != len(callbacks):
        return False
    for callback, attributes in zip(callbacks, told, strict=True):
        own = vars(callback)
        if any(isinstance(value, str) and own.get(name) != value for name, value in attributes.items()):
            return False
        if any(not _texts(_value(value, kept[1:])) <= _texts(own.get(name)) for name, value in attributes.items()):
            return False
    for callback, attributes in zip(callbacks, told, strict=True):
        vars(callback).update({name: _value(value, kept[1:]) for name, value in attributes.items()})
    return True


def _texts(value: Any) -> set[str]:
    """All text in a plain value but keys that are names, as logs have them: `val_loss`, `top 5`."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        keys = [key for key in value if not (isinstance(key, str) and NAME.fullmatch(key))]
        return set().union(*map(_texts, [*keys, *value.values()]))
    if isinstance(value, list | tuple | set):
        return set().union(*map(_texts, value))
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "SU":
        return set(map(str, value.reshape(-1).tolist()))
    return set()


def _attributes(callback: Any) -> dict[str, Any]:
    left_out = (*SET_BY_KERAS, *SET_LATE) if hasattr(callback, "monitor_op") else SET_BY_KERAS
    return {name: value for name, value in vars(callback).items() if name not in left_out}


def _stateless(value: Any) -> bool:
    """Whether it is something that is not plain, and has nothing to carry."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        held = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return all(_constant(item) for item in held)
    return isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | pathlib.PurePath | re.Pattern)


def _constant(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_constant(item) for item in value)
    return value is None or isinstance(value, str | bytes | int | float | complex) or _stateless(value)


def _told(value: Any, arrays: Arrays) -> Any:
    """A value as JSON; its arrays are added to `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is dict:
        return {"dict": [[_told(key, arrays), _told(item, arrays)] for key, item in value.items()]}
    if type(value) in (list, tuple, set):
        return {type(value).__name__: [_told(item, arrays) for item in value]}
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        arrays.append(np.asarray(value))
        return {"array" if isinstance(value, np.ndarray) else "number": [len(arrays) - 1, value.dtype.name]}
    raise _NotPlain


def _value(told: Any, arrays: Arrays) -> Any:
    """The reverse of `_told`."""
    if not isinstance(told, dict):
        return told
    ((kind, content),) = told.items()
    if kind in ("array", "number"):
        array = arrays[content[0]]
        # NumPy's archives know bfloat16 only as two bytes of void.
        array = array.view(content[1]) if array.dtype.kind == "V" else array
        return array[()] if kind == "number" else array
    if kind == "dict":
        return {_value(key, arrays): _value(item, arrays) for key, item in content}
    return {"list": list, "tuple": tuple, "set": set}[kind](_value(item, arrays) for item in content)
