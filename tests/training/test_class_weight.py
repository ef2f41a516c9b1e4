"""Class weights train as they do under `fit(class_weight=...)`, and validate nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.errors import DataError
from batchopt.training.class_weight import weighed
from batchopt.training.probe import choose_engine
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng
from models import compiled, sgd, stack, table

WEIGHTS = {0: 5.0, 2: 0.25}


def build_model(learning_rate: float) -> keras.Model:
    metric = keras.metrics.SparseCategoricalAccuracy(name="weighted")
    return compiled(stack(), sgd(learning_rate), weighted_metrics=[metric])


@pytest.mark.parametrize(
    ("form", "engine"),
    [("labels", "fused"), pytest.param("stream", "fit", marks=pytest.mark.slow)],
)
def test_a_class_weighs_what_it_weighs_under_fit(form: str, engine: Any) -> None:
    data = table()
    x, y = data.train
    if form == "stream":
        data = dataclasses.replace(data, train=tf.data.Dataset.from_tensor_slices((x, y)))
    # A stream in one batch, as it is shuffled in an order of its own.
    batch_size = len(x) if form == "stream" else 16
    resident = Resident(weighed(data, WEIGHTS))
    task = Task(build_model, lambda path: data, class_weight=WEIGHTS)
    program, _ = choose_engine(task, resident, learning_rate=0.1, extra={}, pinned=engine)
    start = program.state()
    weights = program.model.get_weights()
    program.prepare(batch_size)
    program.load(start)
    ours = program.engine.train(epoch_rng(0, 0, 1), batch_size)
    ours |= {f"val_{name}": value for name, value in program.engine.evaluate().items()}

    model, order = build_model(0.1), epoch_rng(0, 0, 1).permutation(len(x))
    model.set_weights(weights)
    theirs = model.fit(
        x[order],
        y[order],
        batch_size=batch_size,
        shuffle=False,
        verbose=0,
        class_weight=WEIGHTS,
        validation_data=data.validation,
    ).history
    assert ours.keys() == theirs.keys()
    for name, (value,) in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-5), name


REFUSED: dict[str, tuple[Dataset, str]] = {
    "weights of examples": (Dataset((np.ones((4, 2)), np.arange(4), np.ones(4))), "exclude each other, as in fit"),
    "several outputs": (Dataset((np.ones((4, 2)), {"a": np.arange(4)})), "is for one output"),
    "no labels": (Dataset((np.ones((4, 2)),)), "is for one output"),
    "a class that is not there": (Dataset((np.ones((4, 2)), np.zeros(4))), "names class 2, and train y has only 0"),
    "text": (Dataset((np.ones((4, 2)), np.array(["a"] * 4))), "train y holds no numbers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_that_have_no_class_weights_are_refused(kind: str) -> None:
    data, said = REFUSED[kind]
    with pytest.raises(DataError) as refusal:
        weighed(data, WEIGHTS)
    assert said in str(refusal.value)


def test_labels_in_a_row_each_have_the_weights_of_their_classes() -> None:
    y = np.array([0, 1, 2, 2])
    for labels in (y, y[:, None], np.eye(3)[y], y.astype("float32")):
        np.testing.assert_array_equal(weighed(Dataset((y, labels)), WEIGHTS).train[2], [5.0, 1.0, 0.25, 0.25])
