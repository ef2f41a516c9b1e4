"""Senseless data is found before training, and named in one line; what may be meant is not refused."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.errors import DataError
from batchopt.training.data_check import SEARCHED, check, check_with
from batchopt.training.fingerprints import data_fingerprint
from batchopt.training.label_check import lacking_classes
from batchopt.training.probe import choose_engine
from batchopt.training.program import build
from batchopt.training.resident import Resident
from keras import ops
from keras.layers import Dense

X = np.random.default_rng(0).normal(size=(60, 12)).astype("f")
Y = X[:, :3].argmax(1)


def model(loss: Any = "sparse_categorical_crossentropy", last: Any = None) -> keras.Model:
    made = keras.Sequential([keras.Input((12,)), Dense(3, "softmax") if last is None else last])
    made.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return made


def data(x: Any = X, y: Any = Y, **parts: Any) -> Dataset:
    return Dataset(**({"train": (x, y), "validation": (X[:10], Y[:10])} | parts))


def changed(array: Any, index: Any, value: Any, dtype: str | None = None) -> Any:
    copy = array.astype(dtype or array.dtype)
    copy[index] = value
    return copy


REFUSED_ALONE: dict[str, tuple[Dataset, str]] = {
    "lengths": (data(X, Y[:50]), "train x has 60, train y has 50 examples"),
    "dates": (data(y=np.arange(60).astype("M8[s]")), "train y holds dates (dtype datetime64[s])"),
    "durations": (data(y=np.arange(60).astype("m8[s]")), "train y holds durations"),
    "records": (data(np.zeros(60, [("a", "f4"), ("b", "i4")])), "train x holds records of several fields"),
    "objects": (data(np.array([None] * 60)), "train x holds Python objects (dtype object)"),
    "a list": (data(train=[X, Y]), "train is a list: give a tuple (x, y)"),
    "a single value": (data(train=(X, np.float32(1))), "train y is a single value"),
    "other parts": (
        data({"a": X, "b": X}, Y, validation=({"a": X}, Y)),
        "validation has the arrays x['a'], y, and train",
    ),
    "another rank": (data(test=(X[:, None, :, None], Y)), "test x has shape (60, 1, 12, 1), and train x (60, 12)"),
    "nothing": (data(validation=(X[:0], Y[:0])), "validation has no examples"),
}


@pytest.mark.parametrize("kind", REFUSED_ALONE)
def test_arrays_that_no_model_takes_are_refused(kind: str) -> None:
    wrong, said = REFUSED_ALONE[kind]
    with pytest.raises(DataError) as refusal:
        check(wrong)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_load_data_returns_is_a_data_set() -> None:
    with pytest.raises(DataError, match="load_data returned tuple, not a Dataset"):
        check((X, Y))  # type: ignore[arg-type]


def binary() -> keras.Model:
    return model("binary_crossentropy", Dense(1, "sigmoid"))


def squares() -> keras.Model:
    return model("mse", Dense(1))


REFUSED: dict[str, tuple[Any, Dataset, str]] = {
    "more targets than outputs": (
        squares,
        data(y=X[:, :3], validation=(X, X[:, :3])),
        "train y has examples of shape (3,), and the model's output asks for (1,)",
    ),
    "fewer targets than outputs": (
        lambda: model("mae", Dense(3)),
        data(y=X[:, :1], validation=(X, X[:, :1])),
        "train y has examples of shape (1,), and the model's output asks for (3,)",
    ),
    "several classes each": (
        model,
        data(y=np.stack([Y, Y], 1), validation=(X, np.stack([Y, Y], 1))),
        "train y has examples of shape (2,), and the model's output asks for (): its loss takes a class for each",
    ),
    "labels one up": (
        model,
        data(y=Y + 1),
        "train y has 3 at index 0: the model has 3 outputs, for the classes 0",
    ),
    "a negative label": (model, data(y=changed(Y, 7, -1)), "train y has -1 at index 7"),
    "a label of a half": (model, data(y=changed(Y, 5, 0.5, "f4")), "train y has 0.5 at index 5"),
    "a NaN label": (model, data(y=changed(Y, 5, np.nan, "f4")), "train y has nan at index 5, and a loss with it"),
    "labels of validation": (model, data(validation=(X, changed(Y, 4, 9))), "validation y has 9 at index 4"),
    "labels of -1 and 1": (binary, data(y=np.sign(X[:, 0]), validation=(X, Y * 0)), "its loss compares probabilities"),
    "a NaN": (squares, data(changed(X, (17, 3), np.nan)), "train x has nan at index 17, 3, and a loss with it is not"),
    "an infinity": (squares, data(changed(X, (17, 3), np.inf)), "train x has inf at index 17, 3"),
    "infinite in 32 bits": (squares, data(changed(X, (2, 1), 1e300, "f8")), "train x has 1e+300 at index 2, 1"),
    "a NaN target": (squares, data(y=changed(X[:, 0], 17, np.nan)), "train y has nan at index 17"),
    "a NaN weight": (
        squares,
        data(train=(X, Y, changed(X[:, 0], 3, np.nan))),
        "train sample_weight has nan at index 3",
    ),
    "complex numbers": (model, data(X.astype("c8"), validation=(X, Y)), "train x holds complex numbers"),
    "complex labels": (squares, data(y=Y.astype("c8")), "train y holds no numbers (dtype complex64)"),
    "text": (model, data(X.astype("U8")), "train x holds text (dtype <U8), and the model takes float32"),
    "another shape": (
        model,
        data(validation=(X[:, :6], Y)),
        "validation x has examples of shape (6,), and the model takes (12,)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_data_that_makes_no_sense_to_its_model_is_refused_with_what_and_where(kind: str) -> None:
    make, wrong, said = REFUSED[kind]
    check(wrong)
    with pytest.raises(DataError) as refusal:
        choose_engine(Task(lambda rate: make(), lambda path: wrong), Resident(wrong), learning_rate=0.1, extra={})
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_test_set_is_looked_at_when_it_is_asked_for_and_not_before() -> None:
    wrong, made = data(test=(X, changed(Y, 4, 9))), model()
    check_with(made, wrong, parts=SEARCHED)
    with pytest.raises(DataError, match="test y has 9 at index 4"):
        check_with(made, wrong, parts=["test"])


def ignoring() -> keras.Model:
    return model(keras.losses.SparseCategoricalCrossentropy(ignore_class=-1))


def masking() -> keras.Model:
    def loss(y: Any, predicted: Any) -> Any:
        known = ops.logical_not(ops.isnan(y))
        off = ops.where(known, y, 0.0) - ops.where(known, predicted, 0.0)
        return ops.sum(off**2) / ops.sum(ops.cast(known, "float32"))

    return model(loss, Dense(1))


def imputing() -> keras.Model:
    inputs = keras.Input((12,))
    known = keras.layers.Lambda(lambda x: ops.where(ops.isnan(x), 0.0, x))(inputs)
    made = keras.Model(inputs, Dense(3, "softmax")(known))
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def outputs() -> keras.Model:
    inputs = keras.Input((12,))
    made = keras.Model(
        inputs, {"kind": Dense(3, "softmax", name="kind")(inputs), "size": Dense(1, name="size")(inputs)}
    )
    made.compile("sgd", {"kind": "sparse_categorical_crossentropy", "size": "mse"}, metrics={"kind": ["accuracy"]})
    return made


def counting_from_one() -> keras.Model:
    class Net(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return super().train_step((data[0], data[1] - 1))

        def test_step(self, data: Any) -> Any:
            return super().test_step((data[0], data[1] - 1))

    made = Net([keras.Input((12,)), Dense(3, "softmax")])
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def reading() -> keras.Model:
    taken = keras.Input((), dtype="string")
    number = keras.layers.StringLookup(vocabulary=["no", "yes"])(taken)
    made = keras.Model(taken, Dense(3, "softmax")(keras.layers.Embedding(3, 2)(number)))
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


WORDS = np.array(["no", "yes"], object)[(X[:, 0] > 0).astype(int)]
MEANT: dict[str, tuple[Any, Dataset]] = {
    "labels that steps of the user's own change": (counting_from_one, data(y=Y + 1, validation=(X, Y + 1))),
    "text of any length": (reading, data(WORDS, validation=(WORDS, Y))),
    "an ignored class": (ignoring, data(y=changed(Y, 7, -1))),
    "missing targets that the loss masks": (masking, data(y=changed(X[:, :1], 17, np.nan), validation=(X, X[:, :1]))),
    "missing values that the model fills in": (imputing, data(changed(X, (17, 3), np.nan))),
    "targets without a last dimension": (squares, data(y=X[:, 0], validation=(X, X[:, 0]))),
    "classes with a last dimension": (model, data(y=Y[:, None], validation=(X, Y[:, None]))),
    "a last dimension of 1": (model, data(X[:, :, None], validation=(X[:, :, None], Y))),
}


@pytest.mark.parametrize("kind", MEANT)
def test_what_may_be_meant_is_not_refused(kind: str) -> None:
    make, meant = MEANT[kind]
    check(meant)
    made = make()
    made.test_step(tuple(tf.constant(part[:1]) for part in meant.train))
    check_with(made, meant)


def test_text_of_any_length_is_known_by_what_it_says() -> None:
    """And not by where it lies in memory, which another process would not know."""
    same = np.array(["".join(word) for word in WORDS], object)
    assert data_fingerprint(data(WORDS)) == data_fingerprint(data(same))
    assert data_fingerprint(data(WORDS)) != data_fingerprint(data(WORDS[::-1]))


def test_looking_changes_no_variable_not_even_one_that_outlives_the_model() -> None:
    seen = tf.Variable(0.0, trainable=False)

    class Counting(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            seen.assign_add(1.0)
            return x

    def counting(rate: float) -> keras.Model:
        made = keras.Sequential([keras.Input((12,)), Counting(), Dense(3, "softmax")])
        made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return made

    task, fine = Task(counting, lambda path: data()), Resident(data())
    built = build(task, fine.data, learning_rate=0.1, extra={}, seed=0)
    before = [variable.numpy() for variable in [*built.variables, seen]]
    chosen, _ = choose_engine(task, fine, learning_rate=0.1, extra={}, pinned="fused")
    after = [variable.numpy() for variable in [*chosen.model.variables, seen]]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_labels_of_several_outputs_are_told_apart() -> None:
    y = {"kind": changed(Y, 3, 5), "size": X[:, :1] * 100}
    wrong = Dataset((X, y), validation=(X, {"kind": Y, "size": X[:, :1]}))
    task = Task(lambda rate: outputs(), lambda path: wrong, metric="kind_accuracy")
    with pytest.raises(DataError, match=r"train y\['kind'\] has 5 at index 3"):
        choose_engine(task, Resident(wrong), learning_rate=0.1, extra={})


@pytest.mark.parametrize("declared", [True, False], ids=["declared inputs", "open inputs"])
def test_a_stream_of_batches_is_refused_and_shows_no_pixels(declared: bool) -> None:
    stream = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    wrong = Dataset(stream, validation=(X, Y))

    def open_model(rate: float) -> keras.Model:
        made = keras.Sequential([*([keras.Input((12,))] if declared else []), Dense(3, "softmax")])
        made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return made

    check(wrong)
    with pytest.raises(DataError, match=r"train is a tf\.data\.Dataset of batches") as refusal:
        choose_engine(Task(open_model, lambda path: wrong), Resident(wrong), learning_rate=0.1, extra={})
    assert len(str(refusal.value)) < 250


def test_an_index_is_that_of_the_array_which_load_data_returned() -> None:
    """And not of what a split has left of it."""
    for index in (7, 8, 9, 10, 11, 12):
        wrong = Dataset(train=(X, changed(Y, index, 9))).split()
        with pytest.raises(DataError, match=f"train y has 9 at index {index}: "):
            check_with(model(), wrong)


def test_a_class_that_validation_lacks_is_told_and_one_class_alone_is_refused() -> None:
    without = Y[:10][Y[:10] != 2], X[:10][Y[:10] != 2]
    assert lacking_classes(data()) == []
    assert lacking_classes(data(validation=without[::-1])) == [
        "validation has no example of class 2: nothing is learned of it"
    ]
    with pytest.raises(DataError, match=r"validation y has class 0 alone, and train y has 2 more.*split_by='class'"):
        lacking_classes(data(validation=(X[:5], Y[:5] * 0)))
    one_hot = np.eye(3)[Y]
    assert "class 2" in lacking_classes(data(y=one_hot, validation=(without[1], np.eye(3)[without[0]])))[0]
    assert lacking_classes(data(y=X[:, 0], validation=(X[:5], X[:5, 0]))) == []
