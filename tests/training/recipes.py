"""More kinds of models, and what people train them with beside a batch size and a rate: their recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from batchopt import Dataset
from keras import layers
from models import (
    EXAMPLES,
    SPARSE,
    adam,
    compiled,
    doubles,
    kind,
    numbers,
    pictures,
    several,
    sgd,
    split,
    stack,
    table,
    weighted,
)


def padded() -> Dataset:
    """Sequences of several lengths, a class at each step, and a weight for each step."""
    x, _ = numbers()
    steps = x.reshape(-1, 6, 2).copy()
    lengths = np.random.default_rng(2).integers(1, 7, len(x))
    steps[np.arange(6) >= lengths[:, None]] = 0.0
    weights = np.random.default_rng(4).uniform(0.0, 2.0, steps.shape[:2]).astype("float32")
    return split(steps, (steps.sum(-1) > 0).astype("int64"), weights)


def weighted_outputs() -> Dataset:
    given = several()
    rng = np.random.default_rng(3)

    def with_weights(parts: Any) -> Any:
        examples = len(parts[1]["which"])
        return (*parts, {name: rng.uniform(0.0, 2.0, examples).astype("float32") for name in ("which", "sum")})

    return Dataset(train=with_weights(given.train), validation=with_weights(given.validation))


def weights_of_nothing() -> Dataset:
    """The first half of the examples weigh nothing, so that whole batches do."""
    x, y = numbers()
    weights = (np.arange(len(x)) >= EXAMPLES // 2).astype("float32")
    return split(x, y, weights)


@kind(table)
def several_metrics(rate: float, knob: float) -> keras.Model:
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="of_two"), SPARSE]
    return compiled(stack(layers.Dropout(knob)), adam(rate), metrics=metrics)


@kind(doubles, metric="area")
def metrics_of_rank(rate: float, knob: float) -> keras.Model:
    model = keras.Sequential([keras.Input((12,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
    metrics = [keras.metrics.AUC(name="area"), keras.metrics.Precision(), keras.metrics.F1Score(threshold=knob)]
    return compiled(model, sgd(rate), "binary_crossentropy", metrics=metrics)


@kind(padded)
def masked_steps_with_weights(rate: float, knob: float) -> keras.Model:
    """The mask reaches the loss and the metrics."""
    body = [layers.Masking(), layers.GRU(6, return_sequences=True, dropout=knob), layers.Dense(2, "softmax")]
    return compiled(keras.Sequential([keras.Input((6, 2)), *body]), adam(rate), weighted_metrics=["accuracy"])


@kind(weighted_outputs, metric="which_accuracy")
def outputs_with_weights_of_their_own(rate: float, knob: float) -> keras.Model:
    taken = {"left": keras.Input((5,), name="left"), "right": keras.Input((7,), name="right")}
    x = layers.Dense(8, "gelu")(layers.Concatenate()([taken["left"], taken["right"]]))
    outputs = {"which": layers.Dense(3, "softmax", name="which")(x), "sum": layers.Dense(1, name="sum")(x)}
    model = keras.Model(taken, outputs)
    losses, weights = {"which": SPARSE, "sum": "huber"}, {"which": 1.0, "sum": knob}
    model.compile(sgd(rate), losses, loss_weights=weights, metrics={"which": ["accuracy"], "sum": ["mae"]})
    return model


@kind(weights_of_nothing)
def batches_that_weigh_nothing(rate: float, knob: float) -> keras.Model:
    return compiled(stack(layers.Dropout(knob)), adam(rate), weighted_metrics=["accuracy"])


@kind(pictures)
def compiled_by_the_user(rate: float, knob: float) -> keras.Model:
    body = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(knob), layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 1)), *body, layers.Dense(3, "softmax")])
    return compiled(model, sgd(rate), jit_compile=True, steps_per_execution=3)


@kind(pictures)
def normalized_and_adaptive(rate: float, knob: float) -> keras.Model:
    """A bias before the normalization would have no gradient but rounding, of which Adam makes steps of `rate`."""
    body = [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(knob)]
    model = keras.Sequential([keras.Input((6, 6, 1)), *body, layers.Flatten(), layers.Dense(3, "softmax")])
    return compiled(model, adam(rate))


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, beside its batch size and its rate.

    Attributes:
        build, data: the model, by its rate, and what it is trained on.
        metric: that counts.
        class_weight, callbacks: as of a task.
        batches: of a batch size, in the place of training data.
        micro: examples at once of a larger batch.
        of_a_step: batches that the model's optimizer takes for a step.
    """

    build: Callable[[float], keras.Model]
    data: Callable[[], Dataset] = table
    metric: str = "accuracy"
    class_weight: dict[int, float] | None = None
    callbacks: Callable[[], list[Any]] | None = None
    batches: Callable[[int], Any] | None = None
    micro: int | None = None
    of_a_step: int = 1


class Batches(keras.utils.PyDataset):
    """The training examples of `table`, each batch with its weights."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.x, self.y = table().train
        self.size = batch_size

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part], np.abs(self.x[part, 0])


def plain(rate: float) -> keras.Model:
    return compiled(stack(), adam(rate))


def _stopping() -> list[Any]:
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, min_delta=10.0, factor=0.5),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, min_delta=10.0, restore_best_weights=True),
    ]


RECIPES = {
    "callbacks": Recipe(plain, callbacks=_stopping),
    "callbacks around batches": Recipe(
        plain, callbacks=lambda: [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]
    ),
    "weights of classes": Recipe(
        lambda rate: compiled(stack(), sgd(rate), weighted_metrics=["accuracy"]), class_weight={0: 0.25, 2: 4.0}
    ),
    "weights of examples in micro-batches": Recipe(plain, weighted, micro=6),
    "a batch of several": Recipe(
        lambda rate: compiled(stack(), adam(rate, gradient_accumulation_steps=4)), of_a_step=4
    ),
    "averages": Recipe(lambda rate: compiled(stack(), sgd(rate, use_ema=True, ema_momentum=0.9))),
    "averages and callbacks": Recipe(
        lambda rate: compiled(stack(), sgd(rate, use_ema=True, ema_momentum=0.9)), callbacks=_stopping
    ),
    "a PyDataset": Recipe(plain, batches=Batches),
    "a PyDataset and averages": Recipe(
        lambda rate: compiled(stack(), sgd(rate, use_ema=True, ema_momentum=0.9)), batches=Batches
    ),
}
