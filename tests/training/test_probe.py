"""The probe times real steps, and a model that one engine refuses is trained by another."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.layers import Dense, Flatten

from optimizer import Dataset, Task
from optimizer.training.probe import choose_engine
from optimizer.training.program import state_of
from optimizer.training.resident import Resident


class OnHost(keras.layers.Layer):
    """XLA cannot compile a call back into Python."""

    def call(self, x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), x.shape)


def net(learning_rate: float, *first: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28)), *first, Flatten(), Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def choose(build_model: Any, data: Dataset, **options: Any) -> Any:
    return choose_engine(Task(build_model, lambda path: data), Resident(data), learning_rate=0.1, extra={}, **options)


def test_in_a_long_study_the_engine_with_the_shortest_step_is_chosen(mnist_slice: Dataset) -> None:
    program, timings = choose(net, mnist_slice, batch_sizes=1, epochs=10**9)
    assert {timing.engine for timing in timings} == {"fused-xla", "fused"}
    assert program.engine.name == timings[0].engine
    assert 0 < timings[0].step_time_s <= timings[1].step_time_s


def test_in_a_short_study_the_engine_that_compiles_fastest_is_chosen(mnist_slice: Dataset) -> None:
    program, timings = choose(net, mnist_slice, batch_sizes=10**6, epochs=1)
    assert program.engine.name == timings[0].engine
    assert 0 < timings[0].compile_seconds <= timings[1].compile_seconds


def test_a_model_that_xla_refuses_is_trained_without_it_and_says_why(mnist_slice: Dataset) -> None:
    program, timings = choose(lambda rate: net(rate, OnHost()), mnist_slice)
    assert program.engine.name == "fused"
    refused = timings[-1]
    assert refused.engine == "fused-xla"
    assert refused.refusal


def test_a_pinned_engine_is_not_timed(mnist_slice: Dataset) -> None:
    program, timings = choose(net, mnist_slice, pinned="fit")
    assert program.engine.name == "fit"
    assert timings == []


def test_an_eager_model_and_a_streamed_data_set_train_through_fit(mnist_slice: Dataset) -> None:
    def eager(learning_rate: float) -> keras.Model:
        model = net(learning_rate)
        model.run_eagerly = True
        return model

    stream = tf.data.Dataset.from_tensor_slices(mnist_slice.train)
    assert choose(eager, mnist_slice)[0].engine.name == "fit"
    assert choose(net, Dataset(stream, validation=mnist_slice.validation))[0].engine.name == "fit"


def test_timing_leaves_no_trace_in_the_weights(mnist_slice: Dataset) -> None:
    program, _ = choose(net, mnist_slice)
    assert int(program.model.optimizer.iterations) == 0
    assert state_of(program.model)[1].tolist() == [0.0] * 10
