"""The probe times real steps, and a model that one engine refuses is trained by another."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.measured import EngineTiming
from batchopt.training.measure import predict_memory
from batchopt.training.messages import PredictedMemory
from batchopt.training.probe import choose_engine
from batchopt.training.program import state_of
from batchopt.training.resident import Resident
from keras.layers import Dense, Flatten


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


@pytest.mark.parametrize(("epochs", "chosen"), [(34_000, "fused"), (36_000, "fused-xla")])
def test_compiling_is_weighed_against_speed(
    epochs: int, chosen: str, mnist_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XLA takes 90 s more to compile ten sizes, and 1 ms less for each of 2.6 steps: they are even at 34,909 epochs."""
    made_up = {"fused-xla": EngineTiming("fused-xla", 0.001, 10.0), "fused": EngineTiming("fused", 0.002, 1.0)}
    monkeypatch.setattr("batchopt.training.probe._time", lambda program, size: made_up[program.engine.name])
    program, timings = choose(net, mnist_slice, batch_sizes=10, epochs=epochs)
    assert program.engine.name == timings[0].engine == chosen


def test_engines_are_really_timed(mnist_slice: Dataset) -> None:
    program, timings = choose(net, mnist_slice)
    assert {timing.engine for timing in timings} == {"fused-xla", "fused"}
    assert program.engine.name == timings[0].engine
    assert all(0 < timing.step_time_s < 1 and timing.compile_seconds > 0 for timing in timings)


def test_where_the_usual_batch_does_not_fit_a_smaller_one_is_timed(
    mnist_slice: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def time(program: Any, batch_size: int) -> EngineTiming:
        tried.append(batch_size)
        if batch_size > 40:
            raise tf.errors.ResourceExhaustedError(None, None, "made up")
        return EngineTiming(program.engine.name, 0.001, 1.0)

    monkeypatch.setattr("batchopt.training.probe._time", time)
    assert len(choose(net, mnist_slice)[1]) == 2
    assert tried == [128, 64, 32, 32]


def test_a_compiler_that_will_not_foretell_memory_leaves_it_to_be_measured(mnist_slice: Dataset) -> None:
    """Its interface is experimental: whatever it raises ends no study."""

    class Refusing:
        def predict_memory(self, batch_size: int) -> int:
            raise tf.errors.UnimplementedError(None, None, "not on this device\nat all")

    program, _ = choose(net, mnist_slice, pinned="fused")
    program.engine = Refusing()
    assert predict_memory(program, [16, 64]) == PredictedMemory({}, refusal="not on this device")


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
