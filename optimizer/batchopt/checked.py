"""Whether what a user has put into a record is of the kind that the record says."""

from __future__ import annotations

import numbers
import os
import types
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from batchopt.errors import InvalidInput
from batchopt.text import printable

WORDS: dict[Any, tuple[type, str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
    os.PathLike: (os.PathLike, "a path"),
    bool: (bool, "True or False"),
    type(None): (type(None), "None"),
}


def check_types(record: Any, *, option: bool = False) -> None:
    """Refuse values of another kind than a dataclass declares.

    Args:
        record: an instance, in its `__post_init__`.
        option: whether its attributes are called as options of a command line.

    Raises:
        InvalidInput: naming the attribute, and what to give.
    """
    hints = get_type_hints(type(record))
    for field in fields(record):
        value, hint = getattr(record, field.name), hints[field.name]
        choices = _choices(hint)
        if choices is not None and not any(_fits(value, choice) for choice in choices):
            name = f"--{field.name.replace('_', '-')}" if option else field.name
            kinds = " or ".join(dict.fromkeys(WORDS[choice][1] for choice in choices))
            raise InvalidInput(f"{name} {printable(repr(value))}: give {kinds}.")


def _choices(hint: Any) -> list[Any] | None:
    """The plain types that a hint allows; None where it allows another one, which is looked at elsewhere."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = [_choices(part) for part in get_args(hint)]
        return None if None in parts else [choice for part in parts for choice in part or ()]
    if get_origin(hint) is Literal:
        return [str]
    hint = get_origin(hint) or hint
    return [hint] if hint in WORDS else None


def _fits(value: Any, choice: Any) -> bool:
    # True is a whole number to Python alone.
    return isinstance(value, WORDS[choice][0]) and (choice is bool or not isinstance(value, bool))
