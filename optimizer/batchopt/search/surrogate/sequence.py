"""Points that fill a cube evenly, however many of them are taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

FINEST = 1e-9
"""Digits worth less than this do not matter."""


def evenly(count: int, dims: int, rng: np.random.Generator) -> FloatArray:
    """The first points of a Halton sequence, its digits permuted at random.

    Args:
        count: of the points.
        dims: of the cube, at least 1.
        rng: decides the permutations.

    Returns:
        In 0 to 1, shape (count, dims).

    Source: Owen 2017, A randomized Halton algorithm in R, arXiv:1706.02808. SciPy has such sequences too, and costs
    every command a second of import.
    """
    numbers = np.arange(count)
    return np.stack([_inverse(numbers, base, rng.permutation) for base in _primes(dims)], axis=1)


def van_der_corput(number: int) -> float:
    """The n-th point of a sequence that fills 0 to 1 evenly: the bits of `number`, mirrored at the point."""
    return float(_inverse(np.array([number]), 2, np.arange)[0])


def _inverse(
    numbers: npt.NDArray[np.int64], base: int, permutation: Callable[[int], npt.NDArray[np.int64]]
) -> FloatArray:
    """The digits of numbers in a base, each place permuted in its own way, mirrored at the point."""
    inverse, part, left = np.zeros(len(numbers)), 1.0, numbers
    while part > FINEST:
        part /= base
        left, digit = np.divmod(left, base)
        inverse += permutation(base)[digit] * part
    return inverse


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found
