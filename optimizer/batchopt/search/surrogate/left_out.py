"""What the surrogate would have said of a trial's final value without that trial: whether its noise is what it is.

Where the warp turns differences near the best into large ones, or too few trials show how runs differ, the evidence may
settle on too little noise. The final values that lie farther from what the other trials say of them than they should,
tell by how much.

Source: Rasmussen and Williams 2006, section 5.4.2, here by whole trials.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dtrtrs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST, TOP = 9, 6
"""Without so many final values nothing is said: of few that lie far apart, what the others say of one is wrong by more
than runs differ. So many of the best, or half of them, are looked at."""

WORST = 0.25
"""This part of the runs, those that ended worst, are none of the best, whatever the others say of them: one that fell
off a cliff that nobody knew of tells where the cliff is, and not how equal runs differ."""

FARTHEST = 9.0
"""A square in parts of its variance that counts as no more: one run that failed is not how runs differ."""


def left_out(factor: FloatArray, white: FloatArray, trial: IntArray, finals: IntArray) -> tuple[FloatArray, FloatArray]:
    """How far final values are from what all other trials say of them.

    Args:
        factor: Cholesky factors of the exact points, shape (sets, points, points).
        white: the whitened values, shape (sets, points).
        trial: of each point, shape (points,).
        finals: the points that are final values, shape (finals,).

    Returns:
        The differences in warped units, and their variances in squared amplitudes, shape (sets, finals) each.
    """
    far, variance = np.zeros((len(factor), len(finals))), np.zeros((len(factor), len(finals)))
    for s, one in enumerate(factor):
        inverse = dtrtrs(one, np.eye(len(one)), lower=1)[0]
        precision, alpha = inverse.T @ inverse, inverse.T @ white[s]
        for at, point in enumerate(finals):
            own = np.flatnonzero(trial == trial[point])
            block = np.linalg.inv(precision[np.ix_(own, own)])
            last = int(np.searchsorted(own, point))
            far[s, at], variance[s, at] = (block @ alpha[own])[last], block[last, last]
    return far, variance


def missing_noise(far: FloatArray, variance: FloatArray, expected: FloatArray, ended: FloatArray) -> FloatArray:
    """The variance from run to run that the surrogate lacks near the best, at least 0.

    Args:
        far: as of `left_out`, shape (sets, finals).
        variance: of these, in the squared units of `far`.
        expected: what the other trials say of each final value, larger is better, shape (finals,).
        ended: these values, in the units of `expected`, shape (finals,).

    Returns:
        Shape (sets,).
    """
    if far.shape[1] < FEWEST:
        return np.zeros(len(far))
    order = np.argsort(-expected, kind="stable")
    best = order[ended[order] >= np.quantile(ended, WORST)][: max(TOP, far.shape[1] // 2)]
    squares = np.minimum(far**2, FARTHEST * variance)[:, best]
    return np.asarray(np.maximum((squares - variance[:, best]).mean(axis=1), 0.0))
