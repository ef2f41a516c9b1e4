"""Metrics by name: each number of a metric has one, and a metric without a name has the same one in every model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from batchopt import Dataset, Task
from batchopt.errors import ModelError
from batchopt.training.engines import make_engine
from batchopt.training.figures import flat
from batchopt.training.metrics import direction_of
from batchopt.training.names import number_anew
from batchopt.training.program import build
from batchopt.training.resident import Resident

X = np.linspace(-1, 1, 20, dtype="float32").reshape(-1, 1)
LABELS = np.eye(2, dtype="float32")[(X[:, 0] > 0).astype(int)]
DATA = Dataset(train=(X, LABELS), validation=(X[::2], LABELS[::2]))


def build_model(learning_rate: float) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, "softmax")])
    metrics = [keras.metrics.AUC(), keras.metrics.Precision(), keras.metrics.F1Score()]
    model.compile(keras.optimizers.SGD(learning_rate), "categorical_crossentropy", metrics=metrics)
    return model


def built(metric: str = "auc", build_model: Any = build_model) -> keras.Model:
    return build(Task(build_model, lambda path: DATA, metric), DATA, learning_rate=0.1, extra={}, seed=0)


def test_names_are_flat_and_each_number_has_one() -> None:
    told = {"which": {"f1": np.array([0.5, 0.25]), "loss": 1.0}, "auc": np.array([0.75]), "loss": 2.0}
    assert flat(told) == {"loss": 2.0, "auc": 0.75, "which/loss": 1.0, "which/f1/0": 0.5, "which/f1/1": 0.25}
    assert next(iter(flat(told))) == "loss"


def test_metrics_without_names_are_called_the_same_in_every_model() -> None:
    """Keras calls those of a process's second model `auc_1`, which neither task nor callbacks ask for."""
    names = [list(flat(built().get_metrics_result())) for _ in range(3)]
    assert names[0] == ["loss", "auc", "precision", "f1_score/0", "f1_score/1"]
    assert names[1] == names[2] == names[0]


def test_layers_of_several_models_are_still_told_apart() -> None:
    """As one that is made once, and is a part of each model, has a name of its own in each."""
    shared = keras.layers.Dense(3)

    def sharing(learning_rate: float) -> keras.Model:
        taken = keras.Input((1,))
        model = keras.Model(taken, keras.layers.Dense(2, "softmax")(keras.layers.Dense(3)(shared(taken))))
        model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.AUC()])
        return model

    for _ in range(3):
        assert len({layer.name for layer in built(build_model=sharing).layers}) == 4


def test_a_metric_that_was_made_before_the_first_model_keeps_its_name() -> None:
    number_anew()
    first, second = keras.metrics.AUC(), keras.metrics.AUC()
    assert [first.name, second.name] == ["auc", "auc_1"]
    number_anew()
    assert keras.metrics.AUC().name == "auc"


@pytest.mark.parametrize("engine", ["fused", pytest.param("fit", marks=pytest.mark.slow)])
def test_one_class_of_a_metric_can_be_watched(engine: Any) -> None:
    model = built("f1_score/1")
    assert direction_of(model, Task(build_model, lambda path: DATA, "f1_score/1")) == "maximize"
    figures = make_engine(engine, model, Resident(DATA)).evaluate()
    told = model.evaluate(X[::2], LABELS[::2], verbose=0, return_dict=True)["f1_score"]
    assert [figures["f1_score/0"], figures["f1_score/1"]] == pytest.approx(list(told), abs=1e-6)


def test_a_metric_of_several_numbers_is_none_that_a_study_can_watch_and_its_numbers_are_named() -> None:
    with pytest.raises(ModelError, match=r"no metric 'f1_score', only loss, auc, precision, f1_score/0, f1_score/1\. "):
        built("f1_score")
