"""Points that fill a cube evenly, however many of them are taken."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def evenly(count: int, dims: int, rng: np.random.Generator) -> FloatArray:
    """The first points of a Halton sequence, moved together by a random shift.

    Args:
        count: of the points.
        dims: of the cube, at least 1.
        rng: decides the shift.

    Returns:
        In 0 to 1, shape (count, dims).

    Source: Halton 1960; the shift: Cranley and Patterson 1976. SciPy has it too, and costs every command a second of
    import.
    """
    numbers = np.arange(1, count + 1)
    columns = [_radical_inverse(numbers, base) for base in _primes(dims)]
    return (np.stack(columns, axis=1) + rng.random(dims)) % 1.0


def _radical_inverse(numbers: npt.NDArray[np.int64], base: int) -> FloatArray:
    """The digits of numbers in a base, mirrored at the point."""
    inverse, part, left = np.zeros(len(numbers)), 1.0, numbers
    while left.any():
        part /= base
        left, digit = np.divmod(left, base)
        inverse += digit * part
    return inverse


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found
