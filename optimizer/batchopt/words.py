"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def amount(number: float) -> str:
    """A number that may be very small, or very large, to three digits."""
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def shown_seconds(number: float) -> str:
    """Seconds to a target, which may be very few, or very many."""
    return f"{number:.3g} s" if number < 100 else duration(number)


def shown_seconds_interval(low: float, high: float) -> str:
    """An interval of seconds, its unit once."""
    return f"{low:.3g} to {high:.3g} s" if high < 100 else f"{shown_seconds(low)} to {shown_seconds(high)}"


@dataclass(frozen=True)
class Unit:
    """A unit, and how much of what is counted it is."""

    name: str
    size: float

    def of(self, number: float) -> str:
        """A number of it, without its name."""
        return amount(number / self.size)


SECOND = Unit("s", 1.0)

ENERGY_UNITS = (Unit("J", 1.0), Unit("kJ", 1e3), Unit("Wh", 3600.0), Unit("kWh", 3.6e6))
"""By what they are in joules."""


def energy_unit(joules: float) -> Unit:
    """The unit in which so much energy is read best: `950 J`, `12.3 kJ`, `45 Wh`, `1.2 kWh`."""
    joule, kilojoule, watt_hour, kilowatt_hour = ENERGY_UNITS
    if joules < 999.5:
        return joule
    if joules < 10 * watt_hour.size:
        return kilojoule
    return watt_hour if joules < 0.9995 * kilowatt_hour.size else kilowatt_hour


def shown_energy(joules: float) -> str:
    """Energy for reading."""
    unit = energy_unit(joules)
    return f"{unit.of(joules)} {unit.name}"


def shown_energy_interval(low: float, high: float) -> str:
    """An interval of energy, its unit once."""
    unit = energy_unit(high)
    return f"{unit.of(low)} to {unit.of(high)} {unit.name}"


def less_or_more(number: float, other: float, what: str, than: str = "") -> str:
    """One amount beside another: `38 % less energy than batch size 32`, `2.6 times the energy of batch size 32`.

    Args:
        number, other: the two.
        what: of what they are; after `the`, `less`, `more` and `as much`.
        than: whose the other one is; empty where that is said elsewhere.
    """
    factor = number / other if other > 0 else math.inf
    percent = f"{abs(factor - 1):.0%}".replace("%", " %")
    if percent == "0 %":
        return f"as much {what}{than and f' as {than}'}"
    if factor < 2:
        return f"{percent} {'less' if factor < 1 else 'more'} {what}{than and f' than {than}'}"
    return f"{factor:.2g} times the {what}{than and f' of {than}'}"


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
