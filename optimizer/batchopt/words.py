"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from batchopt.text import printable


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and its noun: `1 epoch`, `5 epochs`, `2 studies`."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def duration(amount: float) -> str:
    """A duration for reading."""
    if not isinstance(amount, int) and amount < 9.95:
        return f"{amount:.2g} s"
    if round(amount, 1) < 60:
        return f"{amount} s" if isinstance(amount, int) else f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def compared(seconds: float, other: float) -> str:
    """How long something takes beside something else: `5.3 times as fast`, `takes 2.6 times as long`, `as fast`."""
    if not (seconds > 0 and other > 0):
        return "not timed"
    factor = seconds / other
    if f"{max(factor, 1 / factor):.2g}" == "1":
        return "as fast"
    if factor < 1:
        return "twice as fast" if f"{1 / factor:.2g}" == "2" else f"{1 / factor:.2g} times as fast"
    return "takes twice as long" if f"{factor:.2g}" == "2" else f"takes {factor:.2g} times as long"


def chance(probability: float) -> str:
    """A probability: `even odds`, `80 % probability`, `over 99 % probability`."""
    if 0.45 <= probability <= 0.55:
        return "even odds"
    if probability > 0.99:
        return "over 99 % probability"
    return f"{probability:.0%} probability".replace("%", " %") if probability >= 0.01 else "under 1 % probability"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`8`, `8 and 32`, `8, 32 and 64`."""
    return f" {last} ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def extra_words(extra: Mapping[str, Any]) -> str:
    """The values of further dimensions, to follow what was said before."""
    return "".join(f", {printable(name)} {printable(value)}" for name, value in extra.items())


def finite(value: Any) -> Any:
    """JSON values without what JSON has no word for: a number that is not finite is null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
