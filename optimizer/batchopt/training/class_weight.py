"""Class weights as weights of training examples, never of validation, as `fit(class_weight=...)` has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from batchopt.errors import DataError
from batchopt.question.task import Dataset


def weighed(data: Dataset, class_weight: Mapping[int, float] | None) -> Dataset:
    """A data set whose training examples have the weights of their classes; as it is where there are none.

    Args:
        data: split.
        class_weight: by class number; a class that is not named has weight 1.

    Raises:
        DataError: labels that are not one array of classes, or examples that have weights of their own.
    """
    if class_weight is None:
        return data
    if callable(data.train):
        raise DataError("class_weight: a function makes the batches; have it make (x, y, weights of examples).")
    if not isinstance(data.train, tuple):
        return dataclasses.replace(data, train=data.train.map(lambda *parts: _weighed_element(parts, class_weight)))
    x, y = _parts(data.train)
    classes = np.asarray(y)
    if classes.dtype.kind not in "biuf":
        raise DataError(f"class_weight: train y holds no numbers (dtype {classes.dtype}); give class numbers.")
    if classes.ndim > 1:
        classes = classes.argmax(-1) if classes.shape[-1] != 1 else classes[..., 0]
    if classes.ndim > 1:
        raise DataError(f"class_weight: train y has shape {np.shape(y)}; give one class for each example.")
    classes = np.round(classes).astype(np.int64)
    present, place = np.unique(classes, return_inverse=True)
    unknown = sorted(set(class_weight) - set(present.tolist()))
    if unknown:
        raise DataError(f"class_weight names class {unknown[0]}, and train y has only {_shown(present.tolist())}.")
    weights = np.array([class_weight.get(int(label), 1.0) for label in present], np.float32)
    return dataclasses.replace(data, train=(x, y, weights[place]))


def _parts(train: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(train) < 2 or isinstance(train[1], dict | list | tuple):
        raise DataError("class_weight is for one output with labels. Give weights of examples as a third array.")
    if len(train) > 2 and train[2] is not None:
        raise DataError(
            "class_weight and weights of examples exclude each other, as in fit. Multiply them into the third array."
        )
    return train[0], train[1]


def _weighed_element(parts: tuple[Any, ...], class_weight: Mapping[int, float]) -> tuple[Any, ...]:
    """Of a stream: one example, whose label is a number or a row of a one-hot matrix."""
    import tensorflow as tf

    x, y = _parts(parts)
    known = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(class_weight), tf.int64), tf.constant(list(class_weight.values()), tf.float32)
        ),
        default_value=1.0,
    )
    one_hot = y.shape.rank and y.shape[-1] != 1
    label = tf.argmax(y, -1) if one_hot else tf.cast(tf.round(tf.reshape(y, [])), tf.int64)
    return x, y, known.lookup(label)


def _shown(classes: list[int]) -> str:
    return f"{classes[0]} to {classes[-1]}" if len(classes) > 4 else ", ".join(map(str, classes))
