"""Batches that a function of the user's makes for a batch size: a `keras.utils.PyDataset`, a generator, a loader.

They go through Keras' own loop as they are. They are made anew for each epoch, so that an epoch is the same whether its
trial was paused before it or not; what is drawn for an order is drawn from the epoch's own seed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchopt.errors import DataError
from batchopt.question.task import asked_by

Make = Callable[..., Any]

EVALUATION_BATCH_SIZE = 128
"""Of validation data that a function makes: it may be large, and is not known."""

FORMS = "a keras.utils.PyDataset, a generator, a tf.data.Dataset of batches, or a DataLoader"


def made(make: Make, batch_size: int, seed: int = 0) -> Any:
    """What a function makes; `seed` is given where it has an argument of that name.

    Raises:
        DataError: nothing that can be gone through.
    """
    batches = make(batch_size, **asked_by(make, {"seed": seed}))
    if not isinstance(batches, keras.utils.PyDataset) and not hasattr(batches, "__iter__"):
        raise DataError(f"a function of the batch size returned {type(batches).__name__}: return {FORMS}.")
    return batches


def first_batch(make: Make, batch_size: int = 2) -> tuple[Any, ...]:
    """The first batch, as a tuple of arrays with floats as Keras casts them.

    Raises:
        DataError: there is none, or it is no tuple `(x, y)` or `(x, y, sample_weight)`.
    """
    batches = made(make, batch_size)
    batch = batches[0] if isinstance(batches, keras.utils.PyDataset) else next(iter(batches), None)
    if batch is None:
        raise DataError(f"a function of the batch size made no batch of {batch_size} examples.")
    parts = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
    if len(parts) > 3:
        raise DataError(f"a batch has {len(parts)} parts: give (x, y) or (x, y, sample_weight).")

    first = np.asarray(tf.nest.flatten(parts[0])[0])
    if first.ndim and len(first) > batch_size:
        raise DataError(
            f"a function of the batch size was asked for batches of {batch_size} and made one of {len(first)}. "
            "Make them of the batch size that is given."
        )

    def cast(leaf: Any) -> Any:
        array = np.asarray(leaf)
        return array.astype(keras.config.floatx(), copy=False) if "float" in array.dtype.name else array

    return tuple(tf.nest.map_structure(cast, part) for part in parts)


def check_count(make: Make, examples: int, batch_size: int) -> None:
    """Refuse batches that know how many they are, and are not so many as the examples make.

    Raises:
        DataError: saying both.
    """
    batches = made(make, batch_size)
    with contextlib.suppress(TypeError):
        there, wanted = len(batches), -(-examples // batch_size)
        # A loader may leave the last partial batch out.
        if there not in (wanted, examples // batch_size):
            raise DataError(
                f"train_examples={examples} make {wanted} batches of {batch_size}, and train({batch_size}) has "
                f"{there}. Make them of the batch size that is given, or correct train_examples."
            )


@contextlib.contextmanager
def order_of(seed: int) -> Iterator[None]:
    """Keras shuffles the batches of a `PyDataset` by Python's own generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
