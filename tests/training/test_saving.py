"""Models as Keras' own files, and training and validation data as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.errors import DataError, InvalidInput, ModelError
from batchopt.measured import EngineName
from batchopt.training.joining import joined
from batchopt.training.program import Program, build
from batchopt.training.resident import Resident
from batchopt.training.saving import check_savable, save

SPARSE = "sparse_categorical_crossentropy"


def averaging(learning_rate: float) -> Any:
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate, use_ema=True, ema_momentum=0.9), SPARSE, metrics=["accuracy"])
    return model


# Keras 3.15 itself, under NumPy 2, as it writes variables.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("engine", ["fused", "fit"])
def test_averaged_weights_are_what_is_written_and_evaluated(
    engine: EngineName, mnist_slice: Dataset, tmp_path: Path
) -> None:
    """As `fit` leaves them behind."""
    task = Task(averaging, lambda path: mnist_slice)
    model = build(task, mnist_slice, learning_rate=0.01, extra={}, seed=1)
    program = Program(task, Resident(mnist_slice), engine, model)
    start = program.state()
    program.prepare(64)
    program.load(start)
    program.epoch(1, batch_size=64, rng=np.random.default_rng(0))
    averages = [average.numpy() for average in model.optimizer._model_variables_moving_average]
    last = [weight.numpy() for weight in model.trainable_variables]
    loss, accuracy = save(program, str(tmp_path / "best.keras"), "accuracy")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    for written, average, weight in zip(loaded.trainable_variables, averages, last, strict=True):
        np.testing.assert_allclose(written.numpy(), average, atol=1e-7)
        assert not np.allclose(written.numpy(), weight, atol=1e-4)
    figures = loaded.evaluate(*program.data.validation, batch_size=110, verbose=0, return_dict=True)
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert figures["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    with pytest.raises(InvalidInput, match="model file"):
        save(program, str(tmp_path / "nowhere" / "best.keras"), "accuracy")


class Unwritable(keras.layers.Layer):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


def test_what_keras_cannot_write_is_said_before_it_is_trained() -> None:
    model = keras.Sequential([keras.Input((3,)), Unwritable(lambda x: 2 * x), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ModelError, match=r"Keras cannot save this model: .*get_config\(\)"):
        check_savable(model)


def test_validation_examples_come_behind_training_examples() -> None:
    weights = np.arange(3.0)
    data = Dataset(
        ({"a": np.zeros((3, 2)), "b": np.zeros(3)}, np.zeros(3), weights),
        ({"a": np.ones((2, 2)), "b": np.ones(2)}, np.ones(2), np.full(2, 9.0)),
    )
    x, y, weight = joined(data).train
    assert x["a"][:, 0].tolist() == x["b"].tolist() == y.tolist() == [0, 0, 0, 1, 1]
    assert weight.tolist() == [0, 1, 2, 9, 9]
    assert joined(data).validation is data.validation


def test_data_that_cannot_be_joined_is_refused_in_a_line() -> None:
    pair, weighted = (np.zeros((3, 2)), np.zeros(3)), (np.zeros((3, 2)), np.zeros(3), np.ones(3))
    stream = tf.data.Dataset.from_tensor_slices(pair)
    with pytest.raises(DataError, match=r"--on all: a tf\.data\.Dataset cannot be joined"):
        joined(Dataset(stream, stream))
    for other in (weighted, (np.zeros((3, 4)), np.zeros(3)), ({"a": np.zeros((3, 2))}, np.zeros(3))):
        with pytest.raises(DataError, match=r"cannot be joined\. Use --on train"):
            joined(Dataset(pair, other))
