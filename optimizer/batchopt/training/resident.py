"""A data set as engines see it: copied to the device, or left on the host and taken from there batch by batch."""

from __future__ import annotations

import dataclasses
import functools
import math
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from batchopt.errors import InvalidInput
from batchopt.question.task import Dataset, example_count, leaves, take

SHARED_ALIGNMENT = 64
"""TensorFlow shares the memory of arrays that lie at a multiple of this."""


class Resident:
    """A data set and, once a fused engine asks for it, its copy on the device: one, whatever the number of programs.

    Args:
        data: split.
        held: whether it may be held on the device; else every engine but `fit` is refused.
        capacity: bytes of the device, in all.
    """

    def __init__(self, data: Dataset, *, held: bool = True, capacity: float = math.inf) -> None:
        # Only as long as whoever loaded it keeps it: it may be twice as large.
        self.given = weakref.ref(data)
        self.data = dataclasses.replace(
            data, train=as_fit_takes(data.train), validation=as_fit_takes(data.validation), test=as_fit_takes(data.test)
        )
        self._capacity = capacity
        self.held = held and not data.streamed
        self.train_count = train_count(data)

    @property
    def bytes(self) -> int:
        """What it takes on the device."""
        parts = (self.data.train, self.data.validation)
        return sum(leaf.nbytes for part in parts if isinstance(part, tuple) for leaf in leaves(part))

    @property
    def room(self) -> float:
        """Bytes of the device beside it."""
        return max(0.0, self._capacity - (self.bytes if self.held else 0))

    @functools.cached_property
    def train(self) -> Any:
        """The training arrays as device tensors."""
        return _on_device(self.data.train)

    @functools.cached_property
    def validation(self) -> Any:
        """The validation arrays as device tensors."""
        return _on_device(self.data.validation)

    def leave_device(self) -> None:
        """Free the copies; they are made again where an engine asks for them."""
        for part in ("train", "validation"):
            self.__dict__.pop(part, None)


def train_count(data: Dataset) -> int:
    """The number of training examples, of arrays or of a stream with a known cardinality.

    Raises:
        InvalidInput: a stream, or a function, of which nobody says how long it is.
    """
    if not data.streamed:
        return example_count(data.train)
    if callable(data.train):
        if not isinstance(data.train_examples, int) or data.train_examples < 1:
            raise InvalidInput("a function makes the training batches: say of how many examples, train_examples=n.")
        return data.train_examples
    count = int(data.train.cardinality())
    if count < 1:
        raise InvalidInput(
            "the tf.data training set does not know its length; add .apply(tf.data.experimental.assert_cardinality(n))."
        )
    return count


def validation_count(data: Dataset) -> int:
    """The number of validation examples; -1 where a stream does not know."""
    if isinstance(data.validation, tuple):
        return example_count(data.validation)
    return -1 if callable(data.validation) else int(data.validation.cardinality())


def as_fit_takes(data: Any) -> Any:
    """Arrays with floats of any kind as `fit` casts them, to `keras.config.floatx()`; streams as they are."""
    if not isinstance(data, tuple):
        return data

    def cast(leaf: Any) -> Any:
        array = np.asarray(leaf)
        # What 32 bits do not hold is told by the check of the data.
        with np.errstate(over="ignore"):
            return array.astype(keras.config.floatx(), copy=False) if "float" in array.dtype.name else leaf

    return tf.nest.map_structure(lambda leaf: None if leaf is None else cast(leaf), data)


def from_host(data: Any, order: npt.NDArray[np.int64], batch_size: int) -> Any:
    """Batches of arrays that stay in the host's memory, in this order, as a `tf.data.Dataset`."""
    parts = _tuples(tuple(item for item in data if item is not None))
    starts = range(0, len(order), batch_size)

    def batches() -> Iterator[Any]:
        for start in starts:
            yield take(parts, order[start : start + batch_size])

    signature = tf.nest.map_structure(lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), parts)
    stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return stream.apply(tf.data.experimental.assert_cardinality(len(starts)))


class HostBatches:
    """Batches of arrays for Keras' own loop, made once, and gone through in another order each time.

    From arrays Keras makes them anew in each call of `fit` or `evaluate`, which takes as long as a small epoch.

    Args:
        data: held in the host's memory once more.
    """

    def __init__(self, data: Any) -> None:
        self._count = example_count(data)
        self._streams: dict[int, Any] = {}
        with tf.device("CPU:0"):
            self._parts = _tuples(tf.nest.map_structure(tf.constant, tuple(item for item in data if item is not None)))
            self._order = tf.Variable(np.arange(self._count), trainable=False)

    def of(self, batch_size: int, order: npt.NDArray[np.int64] | None = None, examples: int | None = None) -> Any:
        """Examples in batches of so many; the last one has what is left.

        Args:
            batch_size: examples of a batch.
            order: of all examples; as they lie where None.
            examples: so many of them; all where None.
        """
        if order is not None:
            self._order.assign(order)
        if examples is not None:
            return self._made(batch_size, examples)
        if batch_size not in self._streams:
            self._streams[batch_size] = self._made(batch_size, self._count)
        return self._streams[batch_size]

    def _made(self, batch_size: int, examples: int) -> Any:
        def batch(start: Any) -> Any:
            index = self._order[start : tf.minimum(start + batch_size, examples)]
            return tf.nest.map_structure(lambda array: tf.gather(array, index), self._parts)

        return tf.data.Dataset.range(0, examples, batch_size).map(batch).prefetch(tf.data.AUTOTUNE)


def _tuples(nest: Any) -> Any:
    """Lists as tuples: what a `tf.data.Dataset` takes for a nest, and not for one tensor."""
    if isinstance(nest, list | tuple):
        return tuple(map(_tuples, nest))
    return {name: _tuples(item) for name, item in nest.items()} if isinstance(nest, dict) else nest


def _on_device(nest: Any) -> Any:
    def copy(leaf: Any) -> Any:
        array = np.asarray(leaf)
        # An operation that finds no memory raises ResourceExhaustedError; a constant ends the process.
        tf.zeros((array.nbytes,), tf.uint8)
        # Not `tf.constant`, which has NumPy copy the array first, to an address that is not fixed.
        return tf.raw_ops.Identity(input=_unaligned(array))

    return tf.nest.map_structure(copy, tuple(item for item in nest if item is not None))


def _unaligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values where TensorFlow copies them.

    What happens to lie at a multiple of 64 it would share with the host, and the device's memory would be a matter of
    chance.
    """
    if array.ctypes.data % SHARED_ALIGNMENT or not array.size or array.dtype.hasobject:
        return array
    buffer = np.empty(array.nbytes + SHARED_ALIGNMENT + array.itemsize, np.uint8)
    start = -buffer.ctypes.data % SHARED_ALIGNMENT + array.itemsize
    moved = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved
