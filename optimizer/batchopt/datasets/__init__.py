"""The complete MNIST, embedded, so that a study runs with no network. Provenance and licence: README.md beside it."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from batchopt.errors import DataError
from batchopt.question.task import Dataset

MNIST = Path(__file__).with_name("mnist.npz")
MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
VALIDATION_EXAMPLES = 10_000


def load_mnist(path: str | None = None) -> Dataset:
    """MNIST, or another data set of the same layout, as pixels / 255.

    Args:
        path: an .npz file with `x_train` (n, 28, 28) uint8, `y_train` (n,), `x_test` (m, 28, 28), `y_test` (m,);
            the embedded file where None, which is verified by its SHA-256.

    Returns:
        The training images (float32, in 0..1) of which a sixth, 10,000 of MNIST's 60,000, is set apart for
        validation, and the test images.

    Raises:
        DataError: the file is missing, corrupt, or of another layout.
    """
    file = MNIST if path is None else Path(path)
    if file.exists() and not file.is_file():
        raise DataError(f"data file {file}: a folder, a pipe or a device. Give the path of an .npz file with --data.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"data file {file}: {error.strerror or error}. Give the path of an .npz file with --data."
        ) from None
    if path is None and hashlib.sha256(content).hexdigest() != MNIST_SHA256:
        raise DataError(
            f"data file {file}: its SHA-256 is not that of MNIST; the file is corrupt. Restore it from the repository."
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            x_train, y_train, x_test, y_test = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    except (
        # Of NumPy and zipfile: other files, names and layouts; damaged, encrypted, compressed in some other way.
        *(AttributeError, TypeError, KeyError, ValueError, OSError, EOFError, MemoryError),
        *(zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, struct.error),
    ) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"data file {file}: not an .npz file with x_train, y_train, x_test, y_test ({why}).") from None
    for name, values in (("x_train", x_train), ("y_train", y_train), ("x_test", x_test), ("y_test", y_test)):
        if values.dtype.kind not in "biuf":
            raise DataError(f"data file {file}: {name} holds no numbers (dtype {values.dtype}).")
    for name, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if images.ndim != 3 or labels.shape != images.shape[:1] or not len(images):
            raise DataError(
                f"data file {file}: x_{name} {images.shape} and y_{name} {labels.shape} are not n images and n labels."
            )
    return Dataset(
        train=(x_train.astype(np.float32) / 255, y_train.astype(np.int32)),
        test=(x_test.astype(np.float32) / 255, y_test.astype(np.int32)),
        validation_examples=min(VALIDATION_EXAMPLES, max(1, len(x_train) // 6)),
    )
