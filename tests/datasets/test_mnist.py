"""The reference study's data file: whatever else it is given is one line."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batchopt.datasets import load_mnist
from batchopt.errors import DataError

ARRAYS: dict[str, Any] = {
    "x_train": np.zeros((12, 28, 28), np.uint8),
    "y_train": np.zeros(12, np.uint8),
    "x_test": np.zeros((4, 28, 28), np.uint8),
    "y_test": np.zeros(4, np.uint8),
}


def npz(**changes: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **(ARRAYS | changes))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ARRAYS["x_train"])
    return buffer.getvalue()


def with_header(offset: int, value: bytes) -> bytes:
    """An archive with some bytes of each member's headers changed, in front of it and in the directory."""
    content = bytearray(npz())
    for signature, at in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
        start = content.find(signature)
        while start >= 0:
            content[start + at : start + at + len(value)] = value
            start = content.find(signature, start + 4)
    return bytes(content)


def damaged() -> bytes:
    """Rubbish where the first member's deflated bytes are."""
    content = bytearray(npz(x_train=np.random.default_rng(0).integers(0, 255, (12, 28, 28), np.uint8)))
    name = zipfile.ZipFile(io.BytesIO(bytes(content))).infolist()[0]
    start = name.header_offset + 300
    content[start : start + 400] = b"\xff" * 400
    return bytes(content)


FILES = {
    "an .npy file": npy(),
    "text": b"1,2,3\n",
    "nothing": b"",
    "arrays of text": npz(x_train=np.full((12, 28, 28), "a")),
    "arrays of complex numbers": npz(y_test=np.zeros(4, complex)),
    "arrays of objects": npz(y_test=np.array([None] * 4)),
    "an encrypted archive": with_header(6, b"\x01"),
    "an unknown compression": with_header(8, b"\x63"),
    "a damaged archive": damaged(),
    "half an archive": npz()[:200],
    "other names": npz()[:0] + (lambda b: (np.savez(b, a=1), b.getvalue())[1])(io.BytesIO()),
    "another shape": npz(x_test=np.zeros((4, 28), np.uint8)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_holds_no_mnist_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    file.write_bytes(FILES[kind])
    with pytest.raises(DataError) as refusal:
        load_mnist(str(file))
    assert str(file) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_pipe_or_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="a folder, a pipe or a device"):
            load_mnist(str(path))


def test_a_file_of_the_same_layout_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(npz())
    data = load_mnist(str(tmp_path / "own.npz"))
    assert (data.train[0].shape, data.validation_examples) == ((12, 28, 28), 2)
