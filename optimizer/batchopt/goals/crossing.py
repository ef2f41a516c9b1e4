"""When a curve gets to its target."""

from __future__ import annotations

from collections.abc import Mapping

from batchopt.question.metric import Target

Points = Mapping[int, tuple[float, float]]
"""Epoch -> (value, seconds)."""


def first_at(target: Target, curve: Points) -> int | None:
    """The first epoch after which a curve is at the target; None where it never is."""
    return min((epoch for epoch, (value, _) in curve.items() if target.met(value)), default=None)


def epochs_to_target(target: Target, curve: Points) -> float | None:
    """Epochs until a curve is at the target, linear between two evaluations; None where it never gets there.

    A curve of accuracy begins at 0 before the first epoch. It bends, so within that epoch this is later than the truth;
    but of two runs that need less than an epoch the more accurate one is the sooner, which one whole epoch for both
    would not tell. Where another metric begins is not known, and its first epoch counts as a whole one.
    """
    epoch = first_at(target, curve)
    if epoch is None:
        return None
    after = curve[epoch][0]
    if epoch - 1 in curve:
        before = curve[epoch - 1][0]
    elif target.metric.is_accuracy:
        before = 0.0
    else:
        return float(epoch)
    return epoch - (after - target.value) / (after - before)
