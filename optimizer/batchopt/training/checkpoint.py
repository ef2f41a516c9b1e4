"""A trial's state as bytes: NumPy's own archive, no pickle; and when it is worth keeping."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[Any]]


def pack(state: Arrays, callbacks: Arrays | None = None) -> bytes:
    """The arrays, in order, as one uncompressed .npz archive (weights do not compress).

    Args:
        state: of the model and its optimizer.
        callbacks: as `carried.py` has them; None where there are none, or they cannot be carried.
    """
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"callbacks_{index}": array for index, array in enumerate(callbacks or ())}
    np.savez(buffer, *state, **named)
    return buffer.getvalue()


def unpack(content: bytes) -> Arrays:
    """The state that `pack` packed."""
    return _unpacked(content, "arr")


def unpack_callbacks(content: bytes) -> Arrays:
    """The callbacks that `pack` packed; empty where there were none that can be carried."""
    return _unpacked(content, "callbacks")


def _unpacked(content: bytes, kind: str) -> Arrays:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return [archive[f"{kind}_{index}"] for index in range(sum(name.startswith(kind) for name in archive.files))]


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

    def packed(self, state: Arrays, since: float, callbacks: Arrays | None = None) -> bytes:
        """`pack`, remembering what it took from `since` (`time.perf_counter`) on."""
        content = pack(state, callbacks)
        self._pack_seconds = time.perf_counter() - since
        self._unsaved_seconds = 0.0
        return content
