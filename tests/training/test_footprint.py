"""What a step may take, read off its graph: never less than what its layers put out, and never a reason to give up."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from batchopt.training.footprint import at_most, examples_held

DATA = (np.zeros((100, 28, 28, 1), np.float32), np.zeros(100, np.int32))
PUT_OUT = 4 * (26 * 26 * 8 + 8 + 10)
"""Bytes an example, of the three layers."""


@pytest.fixture(scope="module")
def model() -> Any:
    layers = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_step_takes_no_less_than_its_layers_put_out_and_grows_with_its_examples(model: Any) -> None:
    few, many = at_most(model.test_step, DATA, 10), at_most(model.test_step, DATA, 100)
    assert 10 * PUT_OUT < few < 5 * 10 * PUT_OUT
    assert many - few > 90 * PUT_OUT
    assert at_most(model.train_step, DATA, 10) > few


def test_so_many_examples_as_there_is_room_for_and_at_least_one(model: Any) -> None:
    most = at_most(model.test_step, DATA, 100)
    assert examples_held(model.test_step, DATA, 100, math.inf) == 100
    assert examples_held(model.test_step, DATA, 100, most) == 100
    assert examples_held(model.test_step, DATA, 100, most / 4) == 25
    assert examples_held(model.test_step, DATA, 100, 1) == 1
