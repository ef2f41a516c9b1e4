"""Engines: the fused epoch is Keras' own training, step for step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Dataset
from batchopt.errors import InvalidInput
from batchopt.question.task import Task, take
from batchopt.training.engines import FusedEngine, make_engine
from batchopt.training.form import form_of
from batchopt.training.program import build, state_of
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng
from keras.layers import BatchNormalization, Dense, Dropout, Flatten

BATCH_SIZE = 32


def mlp(optimizer: Any, *between: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(16, "relu"), *between, Dense(10, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class OwnStep(keras.Model):
    """A custom `train_step`: gradients are halved before they are applied."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data[:2]
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=predicted)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients([(g / 2, v) for g, v in zip(gradients, self.trainable_variables, strict=True)])
        self._loss_tracker.update_state(loss)
        return self.compute_metrics(x, y, predicted)


def own_step(learning_rate: float) -> keras.Model:
    inputs = keras.Input((28, 28))
    model = OwnStep(inputs, Dense(10, "softmax")(Flatten()(inputs)))
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


MODELS: dict[str, Callable[[float], keras.Model]] = {
    "adam": lambda rate: mlp(keras.optimizers.Adam(rate)),
    "sgd with momentum": lambda rate: mlp(keras.optimizers.SGD(rate, momentum=0.9)),
    "batch normalization": lambda rate: mlp(keras.optimizers.SGD(rate), BatchNormalization()),
    "dropout": lambda rate: mlp(keras.optimizers.Adam(rate), Dropout(0.3)),
    "custom train_step": own_step,
}


def build_named(name: str, data: Dataset, seed: int = 1) -> keras.Model:
    return build(Task(MODELS[name], lambda path: data), data, learning_rate=1e-3, extra={}, seed=seed)


def weights_and_slots(model: keras.Model) -> list[Any]:
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize(
    ("name", "xla"),
    [
        pytest.param(name, xla, marks=[pytest.mark.slow] if xla and name != "adam" else [])
        for name in MODELS
        for xla in (True, False)
    ],
)
def test_an_epoch_ends_with_the_weights_of_a_train_on_batch_loop(name: str, xla: bool, mnist_slice: Dataset) -> None:
    """Same start, same order, the last partial batch included: weights agree to 1e-5, relative to their norm.

    Keras compiles as we do: XLA draws other random numbers for dropout from the same seeds.
    """
    ours, keras_own = build_named(name, mnist_slice), build_named(name, mnist_slice)
    keras_own.jit_compile = xla
    engine = FusedEngine(ours, Resident(mnist_slice), xla=xla)
    start = state_of(ours)
    engine.prepare(BATCH_SIZE)
    for variable, value in zip(form_of(ours).variables, start, strict=True):
        variable.assign(value)

    figures = engine.train(epoch_rng(0, 0, 1), BATCH_SIZE)
    order = epoch_rng(0, 0, 1).permutation(330)
    losses, hits = 0.0, 0.0
    for first in range(0, 330, BATCH_SIZE):
        batch = take(mnist_slice.train, order[first : first + BATCH_SIZE])
        theirs = keras_own.train_on_batch(*batch, return_dict=True)
        losses += theirs["loss"] * len(batch[0])
        hits += theirs["accuracy"] * len(batch[0])
        keras_own.reset_metrics()

    for mine, reference in zip(weights_and_slots(ours), weights_and_slots(keras_own), strict=True):
        difference = np.linalg.norm(np.float64(mine) - np.float64(reference))
        assert difference <= 1e-5 * max(np.linalg.norm(np.float64(reference)), 1e-8)
    assert not np.allclose(state_of(ours)[0], start[0]), "the epoch trained nothing"
    if name != "custom train_step":  # which weighs every batch alike
        assert figures["loss"] == pytest.approx(losses / 330, rel=1e-4)
    assert figures["accuracy"] == pytest.approx(hits / 330, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 110, 330])
def test_every_example_is_trained_on_exactly_once_whatever_the_batch_size(batch_size: int) -> None:
    """A linear model with a learning rate of zero sums up the examples that it sees."""
    seen = tf.Variable(np.zeros(330, np.int32))

    class Witness(keras.layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            if training:
                seen.scatter_add(tf.IndexedSlices(tf.ones(tf.shape(x)[0], tf.int32), tf.cast(x[:, 0], tf.int32)))
            return x

    x = np.arange(330, dtype=np.float32)[:, None]
    data = Dataset(train=(x, x[:, 0]), validation=(x[:10], x[:10, 0]))

    def model(learning_rate: float) -> keras.Model:
        made = keras.Sequential([keras.Input((1,)), Witness(), Dense(1)])
        made.compile(keras.optimizers.SGD(0.0), "mse", metrics=["accuracy"])
        return made

    task = Task(model, lambda path: data)
    engine = FusedEngine(build(task, data, learning_rate=1.0, extra={}, seed=0), Resident(data), xla=False)
    engine.prepare(batch_size)
    seen.assign(tf.zeros_like(seen))
    engine.train(np.random.default_rng(3), batch_size)
    assert seen.numpy().tolist() == [1] * 330


@pytest.mark.parametrize("name", ["fused-xla", "fused", "fit"])
def test_every_engine_evaluates_as_keras_does(name: str, mnist_slice: Dataset) -> None:
    model = build_named("adam", mnist_slice)
    engine = make_engine(name, model, Resident(mnist_slice))
    engine.prepare(64)
    theirs = model.evaluate(*mnist_slice.validation, verbose=0, return_dict=True)
    ours = engine.evaluate()
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-6)


def test_fit_trains_in_the_same_order_as_the_fused_engines(mnist_slice: Dataset) -> None:
    """So that a pinned engine changes seconds and not results."""
    results = []
    for name in ("fused", "fit"):
        model = build_named("adam", mnist_slice)
        start = state_of(model)
        engine = make_engine(name, model, Resident(mnist_slice))
        engine.prepare(BATCH_SIZE)
        for variable, value in zip(form_of(model).variables, start, strict=True):
            variable.assign(value)
        engine.train(epoch_rng(0, 0, 1), BATCH_SIZE)
        results.append(np.concatenate([np.ravel(value) for value in state_of(model)]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-5)


def test_a_streamed_data_set_trains_through_fit(mnist_slice: Dataset) -> None:
    stream = tf.data.Dataset.from_tensor_slices(mnist_slice.train)
    data = Dataset(train=stream, validation=mnist_slice.validation)
    model = build_named("adam", data)
    engine = make_engine("fit", model, Resident(data))
    engine.prepare(BATCH_SIZE)
    before = engine.evaluate()["loss"]
    for epoch in range(1, 4):
        figures = engine.train(epoch_rng(0, 0, epoch), BATCH_SIZE)
    assert figures["loss"] < before
    assert engine.evaluate()["loss"] < before


@pytest.mark.parametrize("name", ["fused", "fused-xla"])
def test_evaluation_makes_do_with_the_memory_there_is(name: Any, mnist_slice: Dataset) -> None:
    """Where its graph did not tell, its chunk is made smaller until it fits, and its figures are the same."""
    held = [1000]

    class Greedy(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            if x.shape[0] is not None and x.shape[0] > held[0]:
                raise tf.errors.ResourceExhaustedError(None, None, "made up")
            return x

    model = mlp(keras.optimizers.SGD(0.1), Greedy())
    engine = make_engine(name, model, Resident(mnist_slice))
    assert engine.chunk == 110
    held[0] = 30
    ours = engine.evaluate()
    theirs = model.evaluate(*mnist_slice.validation, batch_size=30, verbose=0, return_dict=True)
    assert engine.chunk == 13
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1e-6)


def test_a_fused_engine_refuses_what_it_cannot_hold_or_compile(mnist_slice: Dataset) -> None:
    stream = Dataset(tf.data.Dataset.from_tensor_slices(mnist_slice.train), validation=mnist_slice.validation)
    with pytest.raises(InvalidInput, match="needs --engine fit"):
        make_engine("fused", build_named("adam", mnist_slice), Resident(stream))
    eager = build_named("adam", mnist_slice)
    eager.run_eagerly = True
    with pytest.raises(InvalidInput, match="run_eagerly"):
        make_engine("fused-xla", eager, Resident(mnist_slice))


def test_a_stream_of_unknown_length_is_refused_with_what_to_do() -> None:
    stream = tf.data.Dataset.from_tensor_slices(np.arange(4)).filter(lambda x: x > 1)
    with pytest.raises(InvalidInput, match="assert_cardinality"):
        Resident(Dataset(train=stream, validation=(np.arange(2), np.arange(2))))


@pytest.mark.parametrize("name", ["fused", "fit"])
def test_the_first_epoch_after_another_model_was_seeded_takes_what_every_epoch_takes(
    name: Any, mnist_slice: Dataset
) -> None:
    """Setting a seed has TensorFlow drop all kernels; making them again is no part of an epoch.

    In processor seconds, the least of several, so that others on the machine do not matter. Left to the first epoch,
    it has 20 times (fused) or three times (fit) as much.
    """
    engine = make_engine(name, build_named("adam", mnist_slice), Resident(mnist_slice))
    engine.prepare(BATCH_SIZE)
    first: list[float] = []
    later: list[float] = []
    for seed in range(3):
        build_named("adam", mnist_slice, seed=seed)
        engine.prepare(BATCH_SIZE)
        for spent in (first, later, later):
            started = time.process_time()
            engine.train(epoch_rng(0, 0, 1), BATCH_SIZE)
            spent.append(time.process_time() - started)
    assert min(first) < 1.6 * statistics.median(later), (first, later)


def test_fit_traces_a_model_once_for_all_batch_sizes_and_never_during_an_epoch(mnist_slice: Dataset) -> None:
    """Whether an epoch has a partial batch, or fewer steps than are executed together: tracing again takes a second."""
    traced: list[Any] = []

    class Witness(keras.layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            if training:
                traced.append(x.shape)
            return x

    model = mlp(keras.optimizers.SGD(0.1), Witness())
    engine = make_engine("fit", model, Resident(mnist_slice))
    for batch_size in (2, 32, 330, 110, 2, 32):
        engine.prepare(batch_size)
        before = len(traced)
        engine.train(epoch_rng(0, 0, 1), batch_size)
        assert len(traced) == before, f"traced again in an epoch of batch size {batch_size}"
    prepared = len(traced)
    for batch_size in (330, 2, 110, 32):
        engine.prepare(batch_size)
        engine.train(epoch_rng(0, 0, 2), batch_size)
    assert len(traced) == prepared
