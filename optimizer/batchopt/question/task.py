"""A study's question: what to train, on what data, towards which goal. Frozen records; no TensorFlow here."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from batchopt.checked import check_types
from batchopt.errors import DataError, InvalidInput
from batchopt.question.metric import DIRECTIONS, Direction
from batchopt.question.splitting import SplitBy, classes_of, held_out

SPLIT_SEED = 20_260_101
"""Splits validation from training data: fixed, so that every study of a data set validates on the same examples."""

MOST_EPOCHS = 1_000_000_000

Arrays = tuple[Any, ...]
"""`(x, y)` or `(x, y, sample_weight)`; x and y are arrays, or dicts, lists and tuples of arrays, of one length."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        build_model: `build_model(learning_rate, **extra)` returns a compiled Keras model with at least one metric.
            Where it has arguments of these names, it is given them too: `batch_size` and `steps_per_epoch` of the
            trial, `epochs` of a whole trial, and `trial_seed`, so that a schedule, a weight decay or a momentum can
            follow them.
            It runs in the worker, so import Keras inside it and the script starts at once. Where it raises
            `optuna.TrialPruned`, that configuration is not one to train: its trial ends, and the search keeps away.
            Whatever else it raises stops the study.
        load_data: `load_data(path)` returns a `Dataset`; `path` is what `--data` said, or None. Runs in the worker too.
        metric: what the study watches on the validation data, as named in Keras' logs, without `val_`: a compiled
            metric, a weighted one, `loss`, or the loss of an output.
        direction: `maximize` or `minimize`, where neither the metric's class nor its name tells which is better.
        callbacks: `make_callbacks(...)` returns a trial's Keras callbacks, new ones each time; they are called as `fit`
            calls them. It is given what it has arguments for: `learning_rate`, extra dimensions, and what `build_model`
            may ask for. One that sets `model.stop_training` ends its trial, which is complete then.
        class_weight: class number -> weight of its training examples, as in `fit`; 1 for a class that is not named.
    """

    build_model: Callable[..., Any]
    load_data: Callable[[str | None], Dataset]
    metric: str = "accuracy"
    direction: Direction | None = None
    callbacks: Callable[..., Any] | None = None
    class_weight: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        for name in ("build_model", "load_data"):
            if not callable(getattr(self, name)):
                raise InvalidInput(f"{name} {getattr(self, name)!r}: give a function.")
        if self.callbacks is not None and not callable(self.callbacks):
            raise InvalidInput(
                f"callbacks={type(self.callbacks).__name__}: give a function that returns new ones for each trial, for "
                "example callbacks=lambda: [keras.callbacks.EarlyStopping(patience=3)]."
            )
        weights = {} if self.class_weight is None else self.class_weight
        if not isinstance(weights, Mapping) or not all(_is_weight(*pair) for pair in weights.items()):
            raise InvalidInput(
                f"class_weight {self.class_weight!r}: give class numbers with weights, for example {{0: 1.0, 1: 5.0}}."
            )
        check_types(self)
        if not self.metric.strip():
            raise InvalidInput(f"metric {self.metric!r}: give its name in Keras' logs, for example 'accuracy'.")
        if self.direction not in (None, *DIRECTIONS):
            raise InvalidInput(f"direction {self.direction!r}: write {' or '.join(DIRECTIONS)}, or leave it out.")

    def built(self, learning_rate: float, extra: Mapping[str, Any], given: Mapping[str, int]) -> Any:
        """What `build_model` returns.

        Args:
            learning_rate, extra: of the configuration.
            given: what it is given beside them where it has arguments of these names; an extra dimension goes first.
        """
        return self.build_model(learning_rate, **asked_by(self.build_model, given) | dict(extra))

    def made_callbacks(self, learning_rate: float, extra: Mapping[str, Any], given: Mapping[str, int]) -> Any:
        """What `callbacks` returns; arguments as of `built`, each given where it is asked for."""
        assert self.callbacks is not None
        return self.callbacks(**asked_by(self.callbacks, {**given, "learning_rate": learning_rate, **extra}))


def _is_weight(label: Any, weight: Any) -> bool:
    numbers = isinstance(label, int | np.integer) and isinstance(weight, int | float | np.number)
    return numbers and 0 <= float(weight) < math.inf


def asked_by(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given values of which a function has arguments by their names."""
    asks = inspect.signature(function).parameters
    return {name: value for name, value in given.items() if name in asks}


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test data.

    Attributes:
        train: `(x, y)` or `(x, y, sample_weight)` as NumPy arrays (or nests of them; tables and lists of numbers become
            arrays), held on the device; or an unbatched `tf.data.Dataset` of such tuples with a known cardinality, too
            large to be held there. NaN and inf are refused, unless the model or its loss masks them; streams are not
            read through to find any.
            Or a function of the batch size that makes batches, `lambda batch_size: MyPyDataset(..., batch_size)`, a
            generator or a loader; it is called for each epoch, with its `seed` where it has an argument of that name.
        validation: the same; where None, `validation_examples` are split from `train`.
        test: opened only to confirm a recommendation, never by the search.
        validation_examples: how many to split off where `validation` is None; a sixth of `train` where None too.
        split_by: which ones: by `chance`, from a fixed seed; by `class`, of each its share; or the `last`, of data in
            the order of time. By chance where None, unless that leaves validation without a class.
        train_examples: how many there are, where a function makes them.
        rows: made by `split`: by part, where its examples stood in `train` before.
    """

    train: Any
    validation: Any = None
    test: Any = None
    validation_examples: int | None = None
    split_by: SplitBy | None = None
    train_examples: int | None = None
    rows: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            part = getattr(self, name)
            if isinstance(part, tuple):
                arrays = tuple(_as_arrays(name, item) for item in part)
                if any(new is not old for new, old in zip(arrays, part, strict=True)):
                    object.__setattr__(self, name, arrays)

    def split(self, train_examples: int | None = None) -> Dataset:
        """The data set with its validation data set apart, and at most `train_examples` left to train on.

        Raises:
            DataError: arrays of different lengths, or too few examples.
        """
        if self.streamed:
            if self.validation is None:
                what = "what a function makes" if callable(self.train) else "a tf.data training set"
                raise DataError(f"{what} cannot be split; give validation= with it.")
            if callable(self.train):
                if train_examples is not None:
                    raise DataError("--train-examples: a function makes the batches; have it make them of fewer.")
                return self
            train = self.train if train_examples is None else self.train.take(train_examples)
            return dataclasses.replace(self, train=train)
        train, validation, count = self.train, self.validation, example_count(self.train)
        order, rows = np.random.default_rng(SPLIT_SEED).permutation(count), dict[str, npt.NDArray[np.int64]]()
        if validation is None:
            if self.split_by not in (None, *get_args(SplitBy)):
                raise DataError(f"Dataset(split_by={self.split_by!r}): unknown. Use 'chance', 'class' or 'last'.")
            wanted = max(1, count // 6) if self.validation_examples is None else self.validation_examples
            if not 0 < wanted < count:
                raise DataError(f"{wanted} validation examples cannot be split from {count} training examples.")
            labels = train[1] if len(train) > 1 else None
            if self.split_by == "class" and classes_of(labels) is None:
                raise DataError("Dataset(split_by='class'): train y is no array of classes. Use 'chance' or 'last'.")
            rows["validation"], order = held_out(order, labels, wanted, self.split_by)
            validation = take(train, rows["validation"])
        if train_examples is not None and train_examples > len(order):
            raise DataError(f"--train-examples {train_examples}: there are only {len(order)} training examples.")
        if len(order) == count and train_examples is None:
            # All of it, in its order: no copy, which may be half of the memory.
            return dataclasses.replace(self, validation=validation)
        rows["train"] = np.sort(order[:train_examples])
        return dataclasses.replace(self, train=take(train, rows["train"]), validation=validation, rows=rows)

    @property
    def streamed(self) -> bool:
        """Whether the training data is a `tf.data.Dataset`, or made by a function, and not arrays."""
        return not isinstance(self.train, tuple)


@dataclass(frozen=True)
class ProgramStamp:
    """What a study's trials have in common, beside the space: another program is another study.

    Attributes:
        model, data: fingerprints of what the model's config says, and of the data.
        metric, direction: what the study watches, and which way is better.
        form: a fingerprint of all that the model computes (`form.py`); empty where unknown.
        made_with: the versions and the kind of device that this fingerprint is good for.
    """

    model: str
    data: str
    train_examples: int
    validation_examples: int
    metric: str
    direction: Direction = "maximize"
    form: str = ""
    made_with: str = ""


def _as_arrays(name: str, nest: Any) -> Any:
    """A nest whose tables and lists of numbers are arrays; itself where there are none."""
    if hasattr(nest, "to_numpy"):
        return _table(name, nest)
    if isinstance(nest, dict):
        arrays: Any = {key: _as_arrays(name, item) for key, item in nest.items()}
        return nest if all(arrays[key] is item for key, item in nest.items()) else arrays
    if isinstance(nest, list) and _of_values(nest):
        try:
            return np.asarray(nest)
        except ValueError:
            raise DataError(f"{name} has a list whose rows have different lengths: pad them.") from None
    if isinstance(nest, list | tuple):
        arrays = [_as_arrays(name, item) for item in nest]
        return nest if all(new is old for new, old in zip(arrays, nest, strict=True)) else type(nest)(arrays)
    return nest


def _table(name: str, table: Any) -> Any:
    """A data frame or a series as an array; columns of several kinds of numbers, or with missing ones, as floats."""
    array = np.asarray(table.to_numpy())
    if array.dtype != object:
        return array
    columns = {None: table} if array.ndim == 1 else {column: table[column] for column in table.columns}
    kinds = {column: getattr(series.dtype, "numpy_dtype", series.dtype) for column, series in columns.items()}
    no_numbers = [column for column, kind in kinds.items() if getattr(kind, "kind", "O") not in "biuf"]
    if not no_numbers:
        return np.asarray(table.to_numpy(dtype="float64", na_value=np.nan))
    if len(no_numbers) < len(columns):
        column, kind = no_numbers[0], columns[no_numbers[0]].dtype
        raise DataError(
            f"{name} has a table whose column {column!r} holds no numbers (dtype {kind}): encode it, or give each "
            "column as an input of its own, with dict(table)."
        )
    return array


def _of_values(nest: list[Any]) -> bool:
    """Whether a list holds numbers and texts, or lists of them, and no array."""
    first = nest[0] if nest else None
    return isinstance(first, bool | int | float | str | np.generic) or (isinstance(first, list) and _of_values(first))


def leaves(nest: Any) -> list[npt.NDArray[Any]]:
    """The arrays of a nest of dicts, lists and tuples, in a fixed order."""
    if isinstance(nest, dict):
        return [leaf for key in sorted(nest) for leaf in leaves(nest[key])]
    if isinstance(nest, list | tuple):
        return [leaf for item in nest for leaf in leaves(item)]
    return [] if nest is None else [np.asarray(nest)]


def take(nest: Any, index: npt.NDArray[np.int64]) -> Any:
    """The same nest with the examples at `index` of every array."""
    if isinstance(nest, dict):
        return {key: take(item, index) for key, item in nest.items()}
    if isinstance(nest, list | tuple):
        return type(nest)(take(item, index) for item in nest)
    return None if nest is None else np.asarray(nest)[index]


def example_count(nest: Any) -> int:
    """The number of examples that all arrays of a nest agree on.

    Raises:
        DataError: there is no array, or their lengths differ.
    """
    lengths = {len(leaf) for leaf in leaves(nest)}
    if len(lengths) != 1:
        raise DataError(f"the arrays of a data set have lengths {sorted(lengths)}; they must agree.")
    return lengths.pop()
