"""A trial's state as bytes: NumPy's own archive, no pickle; and when it is worth keeping."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import numpy.typing as npt


def pack(state: list[npt.NDArray[Any]]) -> bytes:
    """The arrays, in order, as one uncompressed .npz archive (weights do not compress)."""
    buffer = io.BytesIO()
    np.savez(buffer, *state)
    return buffer.getvalue()


def unpack(content: bytes) -> list[npt.NDArray[Any]]:
    """The arrays that `pack` packed, in order."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return [archive[f"arr_{index}"] for index in range(len(archive.files))]


COST_SHARE = 0.03
"""Of training time: what packing and writing checkpoints may take. They cost more, up to 5 %, where the processor that
writes is the one that trains."""


class Pace:
    """Says after which epochs a trial's state is kept: after each, unless that would cost too much of its time."""

    def __init__(self) -> None:
        self._unsaved_seconds = 0.0
        self._pack_seconds = 0.0

    def restart(self) -> None:
        """Another trial, or the same one from its checkpoint."""
        self._unsaved_seconds = 0.0

    def due(self, train_seconds: float, save_seconds: float) -> bool:
        """Whether to keep the state after an epoch that took `train_seconds`, where keeping takes `save_seconds`."""
        self._unsaved_seconds += train_seconds
        return COST_SHARE * self._unsaved_seconds >= self._pack_seconds + save_seconds

    def packed(self, state: list[npt.NDArray[Any]], since: float) -> bytes:
        """`pack`, remembering what it took from `since` (`time.perf_counter`) on."""
        content = pack(state)
        self._pack_seconds = time.perf_counter() - since
        self._unsaved_seconds = 0.0
        return content
