"""When a curve gets to its target."""

from __future__ import annotations

from collections.abc import Mapping

Points = Mapping[int, tuple[float, float]]
"""Epoch -> (validation accuracy, seconds)."""


def first_at(target: float, curve: Points) -> int | None:
    """The first epoch after which a curve is at the target; None where it never is."""
    return min((epoch for epoch, (accuracy, _) in curve.items() if accuracy >= target), default=None)


def epochs_to_target(target: float, curve: Points) -> float | None:
    """Epochs until a curve is at the target, linear between two evaluations; None where it never gets there.

    The curve begins at accuracy 0 before the first epoch. It bends, so within that epoch this is later than the truth;
    but of two runs that need less than an epoch the more accurate one is the sooner, which one whole epoch for both
    would not tell.
    """
    epoch = first_at(target, curve)
    if epoch is None:
        return None
    after = curve[epoch][0]
    before = curve[epoch - 1][0] if epoch - 1 in curve else 0.0
    return epoch - (after - target) / (after - before)
