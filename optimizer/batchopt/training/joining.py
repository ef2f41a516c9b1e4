"""Training and validation data as one training set, for a model that is kept. No TensorFlow here."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from batchopt.errors import DataError
from batchopt.question.task import Dataset


def joined(data: Dataset) -> Dataset:
    """A data set that is split, with its validation examples behind its training examples; validation stays too.

    Raises:
        DataError: data that cannot be joined: a stream, or arrays of other kinds or shapes.
    """
    if not isinstance(data.train, tuple) or not isinstance(data.validation, tuple):
        raise DataError("--on all: a tf.data.Dataset cannot be joined with validation data. Use --on train.")
    try:
        return dataclasses.replace(data, train=_joined(data.train, data.validation), rows={})
    except (TypeError, ValueError, KeyError):
        raise DataError(
            "--on all: training and validation data have different arrays or shapes, or only one has weights, and "
            "cannot be joined. Use --on train."
        ) from None


def _joined(train: Any, validation: Any) -> Any:
    if isinstance(train, dict):
        if train.keys() != validation.keys():
            raise ValueError
        return {key: _joined(item, validation[key]) for key, item in train.items()}
    if isinstance(train, list | tuple):
        return type(train)(_joined(*pair) for pair in zip(train, validation, strict=True))
    if train is None or validation is None:
        if train is not validation:
            raise ValueError
        return None
    return np.concatenate([np.asarray(train), np.asarray(validation)])
