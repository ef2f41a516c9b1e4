"""Data that no training can make sense of, found before training: what it is and where, in one line.

`check` looks at the arrays alone, `check_with` at what a model does with them. What may be meant is not refused by
rule: a NaN that the model or its loss masks is fine, and whether it does is seen by asking it, with the example it is
in. Of streams only the form is looked at; they are not read through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batchopt.errors import DataError
from batchopt.question.task import Dataset, leaves, take
from batchopt.training.label_check import Fault, bad_labels, first_bad

SEARCHED = ("train", "validation")
"""What a search looks at; the test set waits until it is opened."""

PARTS = (*SEARCHED, "test")
NAMES = ("x", "y", "sample_weight")

CHECKED_BATCH_SIZE = 2
"""Small, so that a wrong number of examples shows in that of batches."""

COMPANY = 32
"""Examples of a batch in which one with a NaN is tried: a masked mean over it alone would be NaN."""


ENDLESS = -1
"""As `tf.data.INFINITE_CARDINALITY`."""


def check(data: Dataset, parts: Sequence[str] = PARTS) -> None:
    """What holds for any model: a pair of arrays of one length, of numbers or text; these parts alike.

    Raises:
        DataError: naming the part, the array and what is wrong with it.
    """
    if not isinstance(data, Dataset):
        raise DataError(f"load_data returned {type(data).__name__}, not a Dataset: return Dataset(train=(x, y)).")
    for part in parts:
        content = getattr(data, part)
        if part != "train" and hasattr(content, "cardinality") and int(content.cardinality()) == ENDLESS:
            raise DataError(f"{part} repeats without an end; leave the .repeat() of that tf.data.Dataset out.")
        if content is None or hasattr(content, "element_spec") or callable(content):
            continue
        # Not an array, a table or a nest of these that was not put into a tuple.
        nest = isinstance(content, list | tuple | Mapping) or hasattr(content, "shape")
        if not nest and (hasattr(content, "__iter__") or hasattr(content, "__getitem__")):
            name = type(content).__name__
            raise DataError(
                f"{part} is a {name}, which has a batch size of its own: give a function of the batch size, "
                f"{part}=lambda batch_size: {name}(..., batch_size), and train_examples=n."
            )
        if not isinstance(content, tuple) or not 1 <= len(content) <= 3:
            raise DataError(
                f"{part} is a {type(content).__name__}: give a tuple (x, y) or (x, y, sample_weight) of arrays, or a "
                "tf.data.Dataset."
            )
        arrays = list(_named(part, content))
        for name, array in arrays:
            _check_kind(name, array)
        lengths = {name: len(array) for name, array in arrays}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"{', '.join(f'{name} has {count}' for name, count in lengths.items())} examples: all arrays of a part "
                "need as many."
            )
        if not any(lengths.values()):
            raise DataError(f"{part} has no examples.")
        if isinstance(data.train, tuple) and part != "train":
            _check_alike(part, content, data.train)


def check_with(model: Any, data: Dataset, given: Dataset | None = None, parts: Sequence[str] = PARTS) -> None:
    """What holds for this model: built, and compiled; its weights and metrics stay as they are.

    Args:
        model: whose data it is.
        data: as the model takes it.
        given: the same before it was cast, where it is still there: what is wrong is told as it was given.
        parts: which are looked at.

    Raises:
        DataError: as `check`.
    """
    for part in parts:
        content = getattr(data, part)
        if callable(content):
            from batchopt.training.made import check_count, first_batch

            # As much as is looked at without going through all.
            content, given = first_batch(content), None
            if part == "train" and data.train_examples:
                check_count(data.train, data.train_examples, CHECKED_BATCH_SIZE)
        if hasattr(content, "element_spec"):
            _check_unbatched(part, content.element_spec, model)
        elif content is not None:
            _check_inputs(part, content[0], model)
            for name, value, at, fault in (*bad_labels(part, content, model), *_not_finite(part, content, model)):
                as_given = dict(_named(part, getattr(given, part)))[name][at] if given else value
                raise DataError(f"{_place(data, part, name, as_given, at)}{fault}")


def _named(name: str, nest: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The arrays of a part with names for people: `train x`, `validation y['a']`."""
    for item, content in zip(NAMES, nest, strict=False):
        yield from _leaves(f"{name} {item}", content)


def _leaves(name: str, nest: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    if isinstance(nest, dict):
        for key in sorted(nest):
            yield from _leaves(f"{name}[{key!r}]", nest[key])
    elif isinstance(nest, list | tuple):
        for position, item in enumerate(nest):
            yield from _leaves(f"{name}[{position}]", item)
    elif nest is not None:
        yield name, np.asarray(nest)


def _check_kind(name: str, array: npt.NDArray[Any]) -> None:
    if array.ndim == 0:
        raise DataError(f"{name} is a single value: the first dimension of an array counts its examples.")
    kind = array.dtype
    what = {"M": "dates", "m": "durations"}.get(kind.kind)
    # Text of any length is what pandas has so, and TensorFlow takes it.
    if kind.kind == "O" and not all(isinstance(item, str | bytes) for item in array.flat):
        what = "Python objects"
    if kind.kind == "V" and (kind.names or kind.type is np.void):
        what = "records of several fields"
    if what:
        raise DataError(f"{name} holds {what} (dtype {kind}): give numbers, for example with .astype('float32').")


def _check_alike(part: str, content: tuple[Any, ...], train: tuple[Any, ...]) -> None:
    mine, theirs = (list(_named("", nest[:2])) for nest in (content, train))
    if [name for name, _ in mine] != [name for name, _ in theirs]:
        there, wanted = (", ".join(name.strip() for name, _ in arrays) for arrays in (mine, theirs))
        raise DataError(f"{part} has the arrays {there}, and train has {wanted}: both need the same.")
    for (name, array), (_, reference) in zip(mine, theirs, strict=True):
        if name.startswith(" x") and array.ndim != reference.ndim:
            raise DataError(
                f"{part}{name} has shape {array.shape}, and train{name} {reference.shape}: their examples need the "
                "same number of dimensions."
            )


def _inputs(model: Any) -> list[Any]:
    """What a model declares of its inputs; nothing where it is not known before it is called."""
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


def _check_inputs(part: str, x: Any, model: Any) -> None:
    inputs = _inputs(model)
    arrays = list(_leaves(f"{part} x", x))
    if not inputs or len(inputs) != len(arrays):
        return
    takes = {str(declared.dtype) for declared in inputs}
    for name, array in arrays:
        what = "complex numbers" if array.dtype.kind == "c" else "text" if array.dtype.kind in "OUS" else ""
        if what and not any(kind.startswith(("complex", "string")) for kind in takes):
            raise DataError(f"{name} holds {what} (dtype {array.dtype}), and the model takes {', '.join(takes)}.")
    if isinstance(x, dict) or len(arrays) > 1:
        return
    name, array = arrays[0]
    wanted = tuple(inputs[0].shape[1:])
    fits = len(wanted) == array.ndim - 1 and all(w in (None, a) for w, a in zip(wanted, array.shape[1:], strict=True))
    # Keras adds or drops a last dimension of 1.
    if not fits and [a for a in array.shape[1:] if a != 1] != [w for w in wanted if w != 1]:
        raise DataError(f"{name} has examples of shape {array.shape[1:]}, and the model takes {wanted}.")


def _check_unbatched(part: str, spec: Any, model: Any) -> None:
    """An element of a stream is one example; a batched one would be batched once more."""
    shapes = [leaf.shape for leaf in _specs(spec)]
    first = [leaf.shape for leaf in _specs(spec[0] if isinstance(spec, tuple) else spec)]
    inputs = _inputs(model)
    as_batches = bool(inputs) and len(inputs) == len(first) and first[0].rank == len(inputs[0].shape)
    open_ended = all(shape.rank and shape[0] is None for shape in shapes)
    if as_batches or open_ended:
        raise DataError(
            f"{part} is a tf.data.Dataset of batches (its elements have shape {shapes[0]}): a study batches by itself. "
            "Leave .batch(...) out, or add .unbatch()."
        )


def _specs(spec: Any) -> list[Any]:
    if isinstance(spec, dict):
        return [leaf for key in sorted(spec) for leaf in _specs(spec[key])]
    if isinstance(spec, list | tuple):
        return [leaf for item in spec for leaf in _specs(item)]
    return [spec]


def _place(data: Dataset, part: str, name: str, value: Any, at: tuple[int, ...]) -> str:
    """What is where, in the arrays that `load_data` returned."""
    if part in data.rows:
        name, at = name.replace(part, "train", 1), (int(data.rows[part][at[0]]), *at[1:])
    shown = f"{value.item():g}" if isinstance(value, np.floating) else str(value)
    return f"{name} has {shown} at index {', '.join(map(str, at))}"


def _not_finite(part: str, content: tuple[Any, ...], model: Any) -> Iterator[Fault]:
    for name, array in _named(part, content):
        if array.dtype.kind != "f":
            continue
        for what, is_bad in (("nan", np.isnan), ("inf", _is_infinite)):
            at = first_bad(array, is_bad)
            if at is not None and not _copes(model, content, at[0], array, is_bad):
                fault = "a loss with it is not finite" if what == "nan" else "it is infinite to the model"
                yield name, array[at], at, f", and {fault}. Mend the data, or mask it."


def _is_infinite(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether values are infinite in 32 bits, in which Keras trains."""
    return np.asarray(np.abs(values) > np.finfo(np.float32).max)


def _copes(model: Any, content: tuple[Any, ...], row: int, array: npt.NDArray[Any], is_bad: Any) -> bool:
    """Whether the model's loss is finite on a batch with this example, and others without such a value."""
    import tensorflow as tf

    head = array[: 8 * COMPANY].reshape(min(len(array), 8 * COMPANY), -1)
    sound = np.flatnonzero(~is_bad(head).any(axis=1))[: COMPANY - 1]
    batch = take(tuple(item for item in content if item is not None), np.array([row, *sound]))
    model.reset_metrics()
    try:
        figures = model.test_step(tf.nest.map_structure(tf.constant, batch))
    except tf.errors.OpError:
        return False
    losses = [value for name, value in figures.items() if name == "loss"] or list(figures.values())
    finite = all(np.isfinite(np.asarray(value, np.float64)).all() for value in leaves(losses))
    model.reset_metrics()
    return finite
