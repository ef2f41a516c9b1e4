"""A trial's state as bytes: NumPy's own archive, no pickle."""

from __future__ import annotations

import io
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
