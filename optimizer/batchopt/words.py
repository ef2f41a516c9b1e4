"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchopt.text import printable


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and its noun: `1 epoch`, `5 epochs`, `2 studies`."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def duration(amount: float) -> str:
    """A duration for reading."""
    if round(amount, 1) < 60:
        return f"{amount} s" if isinstance(amount, int) else f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def extra_words(extra: Mapping[str, Any]) -> str:
    """The values of further dimensions, to follow what was said before."""
    return "".join(f", {printable(name)} {printable(value)}" for name, value in extra.items())
