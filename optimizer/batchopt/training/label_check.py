"""Labels that a model's losses can make no sense of: classes it has no output for, shapes that are not its output's.

Of Keras' own losses alone: what another one makes of labels, nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from batchopt.errors import DataError
from batchopt.question.splitting import classes_of
from batchopt.question.task import Dataset, take

Fault = tuple[str, Any, tuple[int, ...], str]
"""An array, a value in it, where, and what is wrong with that."""

CHUNK_VALUES = 1 << 22
"""So many values are looked at at once, so that looking takes no memory."""

Shape = tuple[int | None, ...]

BY_ELEMENT = (
    *("binarycrossentropy", "binaryfocalcrossentropy", "meansquarederror", "mse", "meanabsoluteerror", "mae", "huber"),
    *("meanabsolutepercentageerror", "mape", "meansquaredlogarithmicerror", "msle", "logcosh", "poisson"),
)
"""Losses that compare labels and outputs element by element."""


def lacking_classes(data: Dataset) -> list[str]:
    """What is to be said of classes that are in the training data, and not in the validation data.

    Args:
        data: split.

    Raises:
        DataError: there is only one class in the validation data, which tells nothing from anything.
    """
    if not all(isinstance(part, tuple) and len(part) > 1 for part in (data.train, data.validation)):
        return []
    classes = classes_of(data.train[1])
    if classes is None or np.shape(data.train[1])[1:] != np.shape(data.validation[1])[1:]:
        return []
    validation = np.asarray(data.validation[1])
    one_hot = validation.ndim == 2 and validation.shape[1] > 1
    there = np.unique(validation.argmax(1) if one_hot else validation.reshape(-1))
    missing = np.setdiff1d(np.unique(classes), there).tolist()
    if missing and len(there) == 1:
        raise DataError(
            f"validation y has class {there[0]} alone, and train y has {len(missing)} more: no metric of it means "
            "anything. Use Dataset(split_by='class'), or give other validation data."
        )
    shown = ", ".join(map(str, missing[:5])) + (" and others" if len(missing) > 5 else "")
    return [f"validation has no example of class {shown}: nothing is learned of it"] if missing else []


def bad_labels(part: str, content: tuple[Any, ...], model: Any) -> Iterator[Fault]:
    """Class numbers that the model has an output for, probabilities in 0 to 1; of Keras' own losses."""
    for name, array, output, loss in _targets(part, content, model):
        if array.dtype.kind not in "biuf":
            raise DataError(f"{name} holds no numbers (dtype {array.dtype}): give class numbers or values.")
        kind, classes = _kind_of(loss), output[-1] if output else None
        _check_shape(name, array.shape[1:], output[1:], kind)
        if kind == "sparsecategoricalcrossentropy" and classes is not None:
            is_bad: Callable[[Any], Any] = partial(_is_no_class, classes, getattr(loss, "ignore_class", None))
            fault = f"the model has {classes} outputs, for the classes 0 to {classes - 1}"
        elif kind in ("binarycrossentropy", "categoricalcrossentropy", "binaryfocalcrossentropy"):
            is_bad, fault = _is_no_probability, "its loss compares probabilities, 0 to 1"
        else:
            continue
        at = first_bad(array, is_bad)
        if at is not None:
            yield name, array[at], at, f": {fault}."


def _check_shape(name: str, labels: Shape, output: Shape, kind: str) -> None:
    """Refuse labels that Keras' own loss would compare with each other's outputs, by broadcasting; or that it refuses.

    Args:
        name: for people.
        labels, output: shapes of an example's.
        kind: of the loss, as of `_kind_of`; nothing is known of another's.
    """
    if kind == "sparsecategoricalcrossentropy":
        wanted, fits = output[:-1], labels in (output[:-1], (*output[:-1], 1))
    elif kind in BY_ELEMENT:
        # Keras adds or drops a last dimension of 1.
        wanted, fits = output, labels == output or (*labels, 1) == output or labels == (*output, 1)
    else:
        return
    if not fits:
        why = (
            "each would be compared with all of another's" if kind in BY_ELEMENT else "its loss takes a class for each"
        )
        raise DataError(f"{name} has examples of shape {labels}, and the model's output asks for {wanted}: {why}.")


def _is_no_class(classes: int, ignored: int | None, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    wrong: npt.NDArray[np.bool_] = (values < 0) | (values >= classes) | (values != np.floor(values))
    meant = np.isnan(values) if ignored is None else np.isnan(values) | (values == ignored)
    return np.asarray(wrong & ~meant)


def _is_no_probability(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray((values < 0) | (values > 1))


def _kind_of(loss: Any) -> str:
    """Which of Keras' losses it is, however it was written; empty where it is another."""
    if isinstance(loss, str):
        return loss.replace("_", "").lower()
    what = loss if hasattr(loss, "__name__") else type(loss)
    return what.__name__.replace("_", "").lower() if what.__module__.startswith("keras.") else ""


def _targets(part: str, content: tuple[Any, ...], model: Any) -> Iterator[tuple[str, npt.NDArray[Any], Any, Any]]:
    """Each output's labels with their name, the output's shape, its loss; where it is clear whose is whose.

    It is not where the model has steps or a loss of its own, which may make something else of the labels first.
    """
    import keras
    import tensorflow as tf

    own = any(getattr(type(model), name) is not getattr(keras.Model, name) for name in ("train_step", "compute_loss"))
    if len(content) < 2 or content[1] is None or own:
        return
    labels, losses = content[1], model.loss
    outputs = model(tf.nest.map_structure(tf.constant, take(content[0], np.arange(1))), training=False)
    if hasattr(outputs, "shape"):
        if not isinstance(labels, dict | list | tuple) and not isinstance(losses, dict | list | tuple):
            yield f"{part} y", np.asarray(labels), tuple(outputs.shape), losses
        return
    names = getattr(model, "output_names", None) or []
    by_name = [
        nest
        if isinstance(nest, dict)
        else dict(zip(names, nest, strict=False))
        if isinstance(nest, list | tuple)
        else {}
        for nest in (labels, outputs, losses)
    ]
    for name in by_name[0]:
        if all(name in nest for nest in by_name):
            yield f"{part} y[{name!r}]", np.asarray(by_name[0][name]), tuple(by_name[1][name].shape), by_name[2][name]


def first_bad(array: npt.NDArray[Any], is_bad: Any) -> tuple[int, ...] | None:
    """The index of the first value of which that is true; None where it is of none."""
    rows = max(1, CHUNK_VALUES // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        wrong = is_bad(array[start : start + rows])
        if wrong.any():
            at = _first(wrong)
            return (start + at[0], *at[1:])
    return None


def _first(wrong: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
