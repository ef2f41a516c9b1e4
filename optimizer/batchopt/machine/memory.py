"""What a training step needs at any batch size, from what it needed at a few; no TensorFlow here.

Most models need a constant and so much per example. Some, those that compare all examples of a batch with each other
first of all, also need so much per pair. So need(B) = a + b B + c B^2 with a, b, c >= 0, fitted to relative errors:
affine wherever the data says so, and never a negative memory.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batchopt.measured import DeviceMemory

RESERVE_SHARE, RESERVE_BYTES = 0.03, 1 << 20
"""Kept free: allocators round, and split what they have into pieces."""


@dataclass(frozen=True)
class MemoryLaw:
    """Bytes that a training step needs beside what is resident: `constant + per_example B + per_pair B^2`."""

    constant: float
    per_example: float
    per_pair: float

    def __call__(self, batch_size: int) -> int:
        """Bytes at a batch size."""
        return round(self.constant + batch_size * (self.per_example + batch_size * self.per_pair))

    @classmethod
    def fitted(cls, step_bytes: Mapping[int, float]) -> MemoryLaw:
        """The law through what was foreseen or measured.

        Args:
            step_bytes: bytes by batch size, at least one; from two on it has a slope, from three on it may bend.
        """
        # Takes half a second to import, and workers, which import this module, have no use for it.
        from scipy.optimize import nnls

        sizes = np.array(sorted(step_bytes), dtype=float)
        seen = np.maximum(np.array([step_bytes[int(size)] for size in sizes], dtype=float), 1.0)
        powers = np.stack([np.ones_like(sizes), sizes, sizes**2], axis=1)[:, : min(len(sizes), 3)]
        if len(sizes) == 1:
            # Nothing is known but that it grows with the batch.
            return cls(0.0, float(seen[0] / sizes[0]), 0.0)
        scaled = powers / seen[:, None]
        norms = np.linalg.norm(scaled, axis=0)
        weights = nnls(scaled / norms, np.ones(len(sizes)))[0] / norms
        constant, per_example, per_pair = [*weights.tolist(), 0.0][:3]
        return cls(constant, per_example, per_pair)


def needed(memory: DeviceMemory, step_bytes: float) -> int:
    """Bytes that training needs in all, the reserve included.

    Args:
        memory: of the device.
        step_bytes: what a training step needs beside what is resident.
    """
    bare = memory.resident_bytes + max(step_bytes, memory.beginning_bytes)
    return round(bare * (1 + RESERVE_SHARE)) + RESERVE_BYTES


def largest_fitting(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The greatest batch size that fits, by bisection; None where not even the least one does.

    Args:
        sizes: ascending.
        fits: monotone: where one does not fit, no larger one does.
    """
    fitting = bisect.bisect_left(sizes, True, key=lambda size: not fits(size))
    return sizes[fitting - 1] if fitting else None


def shown_bytes(count: float) -> str:
    """Bytes for reading, in the units that `--memory-limit` takes."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
