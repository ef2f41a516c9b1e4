"""How many more runs it takes to tell two configurations apart."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

MAY_BE_BETTER = 0.05
"""A configuration is told apart from the recommended one once it is less likely than this to be better."""

POWER = 0.8
"""As many more runs as are asked for tell the two apart in so many of studies, the gap being as uncertain as it is.
What is counted is the assurance, not the power for a gap exactly as expected (O'Hagan, Stevens, Campbell 2005)."""

MOST_RUNS = 200
"""More runs than this would not be made: the difference is too small to matter."""


def runs_to_tell(
    gap: float, error: float, run_sd: float, *, own: float = 0.0, runs: tuple[int, int] = (1, 1)
) -> int | None:
    """How many more runs of each of two configurations most likely tell them apart; None where too many.

    What is known already is the variance v of the difference. It and n runs of each, whose difference has the variance
    2 run_sd^2 / n, leave w = 1 / (1 / v + n / (2 run_sd^2)). The gap that they will show varies by v - w around what is
    expected now, and tells the two apart where it is z sqrt(w) or more, whichever of the two is ahead.

    What each may have for itself is in the doubt, before and after, and moves nothing.

    Args:
        gap: how far they are expected to be apart.
        error: the standard deviation of that.
        run_sd: of one run around what its configuration is worth; all in the same units.
        own: the part of one run's variance that its configuration may have for itself, as the error holds it.
        runs: that there are of each of the two: with more of them it has so much less.
    """
    counts = np.arange(1, MOST_RUNS + 1)
    one = max(run_sd**2, 1e-300)
    known = error**2 - own * one * sum(1 / there for there in runs)
    if not known > 0:
        return None
    gap = abs(gap)
    left = 1 / (1 / known + counts / (2 * one))
    doubt = left + own * one * sum(1 / (there + counts) for there in runs)
    needed, moves = ndtri(1 - MAY_BE_BETTER) * np.sqrt(doubt), np.sqrt(np.maximum(known - left, 1e-300))
    told = ndtr((gap - needed) / moves) + ndtr((-gap - needed) / moves)
    enough = np.flatnonzero(told >= POWER)
    return int(counts[enough[0]]) if len(enough) else None
