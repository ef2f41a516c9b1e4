"""Which of the configurations that are worth it is recommended: the trade of the metric against time.

Nothing is ever recommended that another configuration is expected to beat in both, of batch sizes that were tried: what
was never tried may be anything, and nobody should stake days on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from batchopt.question.goal import Prefer

ALIKE = 0.9
"""Of two times as much: timings differ by some per cent, and one that was trained is taken before one that is not."""

SURE, EVEN = 0.6, 0.5
"""How sure it is to be that a faster configuration loses no more than the tolerance: `balanced`, and `fastest`."""


class Row(Protocol):
    """What is known of a configuration, as far as it is asked here; see `Estimate` in `advice.py`."""

    @property
    def mean(self) -> float: ...
    @property
    def standard_error(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def chance_within(self) -> float: ...
    @property
    def runs(self) -> int: ...
    @property
    def trial(self) -> int: ...


AnyRow = TypeVar("AnyRow", bound=Row)


def front(rows: Sequence[AnyRow], sign: float) -> list[AnyRow]:
    """Those that no other one is expected to beat in both value and seconds, in their order.

    Args:
        rows: one for each batch size.
        sign: 1 where larger values are better, -1 where smaller ones are.
    """
    return [
        row
        for row in rows
        if not any(sign * other.mean > sign * row.mean and other.seconds < row.seconds for other in rows)
    ]


def preferred(rows: Sequence[AnyRow], prefer: Prefer, sign: float) -> AnyRow:
    """The one to recommend.

    Args:
        rows: at least one, with their chances to be within the tolerance.
        prefer: `best`, the one that is expected best, by its value less one standard error, as what little is known of
            may be anything; `balanced` and `fastest`, the one that takes least of those that are within the tolerance
            with a probability of `SURE`, and `EVEN`; where none is, the likeliest of those trained to their end.
        sign: as of `front`.
    """
    there = front([row for row in rows if row.runs] or rows, sign)
    if prefer == "best":
        return max(there, key=lambda row: sign * row.mean - row.standard_error)
    needed = SURE if prefer == "balanced" else EVEN
    within = [row for row in there if row.chance_within >= needed]
    if within:
        least = min(row.seconds for row in within)
        alike = [row for row in within if ALIKE * row.seconds <= least]
        return min(alike, key=lambda row: (row.trial < 0, row.seconds, -sign * row.mean))
    # Where nothing is sure, one that was seen, whatever is guessed of others.
    seen = [row for row in rows if row.trial >= 0]
    return max(front(seen, sign) if seen else there, key=lambda row: row.chance_within)
