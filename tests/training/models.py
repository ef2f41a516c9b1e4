"""Models of many kinds, as people write them: each takes a rate, and a `knob` that is compiled into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from batchopt import Dataset
from batchopt.question.metric import Direction
from keras import layers, ops

EXAMPLES, HELD_OUT = 85, 30
SPARSE = "sparse_categorical_crossentropy"


@dataclass(frozen=True)
class Kind:
    """A model and its data.

    Attributes:
        direction: of the metric, where its name does not tell.
        engines: that can train it; `fit` runs all.
        tolerance: relative, of figures above 1, else absolute.
        shared: whether trials that differ in the rate alone are sure to be trained by one program.
        fast: whether it is tried each time.
    """

    build: Callable[..., keras.Model]
    data: Callable[[], Dataset]
    metric: str = "accuracy"
    direction: Direction | None = None
    engines: tuple[str, ...] = ("fused", "fused-xla", "fit")
    tolerance: float = 1e-5
    shared: bool = True
    fast: bool = False


KINDS: dict[str, Kind] = {}


def kind(data: Callable[[], Dataset], **more: Any) -> Callable[[Any], Any]:
    def add(build: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
        KINDS[build.__name__] = Kind(build, data, **more)
        return build

    return add


def split(*parts: Any) -> Dataset:
    """Of nests of arrays, the first examples to train on and the others to validate."""

    def taken(which: slice) -> Any:
        return tf.nest.map_structure(lambda array: array[which], parts)

    return Dataset(train=taken(slice(EXAMPLES)), validation=taken(slice(EXAMPLES, None)))


def numbers() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES + HELD_OUT, 12)).astype("float32")
    return x, (x[:, :3] + 0.5 * rng.normal(size=(len(x), 3))).argmax(1)


def table() -> Dataset:
    return split(*numbers())


def doubles() -> Dataset:
    x, y = numbers()
    return split(x.astype("float64"), (y[:, None] > 0).astype("float64"))


def weighted() -> Dataset:
    return split(*numbers(), np.random.default_rng(1).uniform(0.1, 3.0, EXAMPLES + HELD_OUT).astype("float32"))


def pictures() -> Dataset:
    x, y = numbers()
    return split(np.repeat(x, 3, axis=1).reshape(-1, 6, 6, 1), y)


def tokens() -> Dataset:
    x, y = numbers()
    return split(np.abs(x * 2).astype("int32") % 7, y)


def words() -> Dataset:
    x, y = numbers()
    return split(np.array(["no", "yes", "so"])[np.digitize(x[:, 0], [-0.5, 0.5])].astype(object), y)


def several() -> Dataset:
    x, y = numbers()
    return split({"left": x[:, :5], "right": x[:, 5:]}, {"which": y, "sum": x.sum(1, keepdims=True)})


def itself() -> Dataset:
    return split(numbers()[0])


def stack(*between: Any, first: Any = "relu", **more: Any) -> keras.Model:
    return keras.Sequential([keras.Input((12,)), layers.Dense(16, first, **more), *between, layers.Dense(3, "softmax")])


def compiled(model: keras.Model, optimizer: Any, loss: Any = SPARSE, metrics: Any = ("accuracy",), **more: Any) -> Any:
    model.compile(optimizer, loss, metrics=list(metrics), **more)
    return model


def sgd(rate: Any, **more: Any) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(rate, **more)


def adam(rate: Any, **more: Any) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(rate, **more)


@kind(table)
def keras_own(rate: float, knob: float) -> keras.Model:
    return compiled(stack(layers.BatchNormalization(), layers.Dropout(knob)), adam(rate))


@kind(table)
def set_after_construction(rate: float, knob: float) -> keras.Model:
    dropout = layers.Dropout(0.1)
    dropout.rate = knob
    model = stack(dropout, layers.LayerNormalization())
    model.layers[2].epsilon = knob
    return compiled(model, sgd(rate))


@kind(table, fast=True)
def dropout_of_a_subclass(rate: float, knob: float) -> keras.Model:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.dropout, self.head = (
                layers.Dense(16, "relu"),
                layers.Dropout(knob),
                layers.Dense(3, "softmax"),
            )

        def call(self, x: Any, training: bool = False) -> Any:
            return self.head(self.dropout(self.body(x), training=training))

    return compiled(Net(), sgd(rate))


@kind(table)
def factor_of_a_layer(rate: float, knob: float) -> keras.Model:
    class Scale(layers.Layer):
        def get_config(self) -> dict[str, Any]:
            return {"name": self.name}

        def call(self, x: Any) -> Any:
            return x * knob

    return compiled(stack(Scale()), sgd(rate))


@kind(table)
def factor_of_a_loss(rate: float, knob: float) -> keras.Model:
    return compiled(stack(), sgd(rate), lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p) * knob)


@kind(table)
def attribute_of_a_loss(rate: float, knob: float) -> keras.Model:
    class Focal(keras.losses.Loss):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = knob

        def call(self, y: Any, p: Any) -> Any:
            return keras.losses.sparse_categorical_crossentropy(y, p) * self.gamma

    return compiled(stack(), adam(rate), Focal())


@kind(table)
def activation(rate: float, knob: float) -> keras.Model:
    def squash(x: Any) -> Any:
        return x * knob

    return compiled(stack(first=squash), sgd(rate))


@kind(table)
def lambda_layer(rate: float, knob: float) -> keras.Model:
    return compiled(stack(layers.Lambda(lambda x: x * knob, output_shape=(16,))), sgd(rate))


@kind(table)
def regularizer(rate: float, knob: float) -> keras.Model:
    return compiled(stack(kernel_regularizer=lambda w: knob * ops.sum(w * w)), sgd(rate))


@kind(table)
def metric(rate: float, knob: float) -> keras.Model:
    def scaled(y: Any, p: Any) -> Any:
        return knob * keras.metrics.sparse_categorical_accuracy(y, p)

    return compiled(stack(), sgd(rate), metrics=["accuracy", scaled])


@kind(table)
def metric_with_a_result_of_its_own(rate: float, knob: float) -> keras.Model:
    class Sum(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="sum")
            self.total = self.add_variable((), "zeros")

        def update_state(self, y: Any, p: Any, sample_weight: Any = None) -> None:
            self.total.assign_add(ops.sum(p[:, 0]))

        def result(self) -> Any:
            return self.total * knob

        def reset_state(self) -> None:
            self.total.assign(0.0)

    return compiled(stack(), sgd(rate), metrics=["accuracy", Sum()])


@kind(table, shared=False)
def schedule_whose_config_leaves_the_rate_out(rate: float, knob: float) -> keras.Model:
    class Warm(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return rate * ops.minimum(1.0, (ops.cast(step, "float32") + 1) * knob / 10)

        def get_config(self) -> dict[str, Any]:
            return {}

    return compiled(stack(), sgd(Warm()))


@kind(table, shared=False)
def keras_own_schedule(rate: float, knob: float) -> keras.Model:
    return compiled(stack(), adam(keras.optimizers.schedules.CosineDecay(rate, 20, alpha=knob)))


@kind(table)
def two_optimizers(rate: float, knob: float) -> keras.Model:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = layers.Dense(16, "relu"), layers.Dense(3, "softmax")
            self.body_optimizer = sgd(rate * knob, momentum=knob)

        def call(self, x: Any) -> Any:
            return self.head(self.body(x))

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                p = self(x, training=True)
                loss = self.compute_loss(y=y, y_pred=p)
            for optimizer, part in ((self.optimizer, self.head), (self.body_optimizer, self.body)):
                variables = part.trainable_variables
                optimizer.apply(tape.gradient(loss, variables), variables)
            return self.compute_metrics(x, y, p)

    return compiled(Net(), adam(rate))


@kind(table)
def averaged_weights(rate: float, knob: float) -> keras.Model:
    return compiled(stack(), keras.optimizers.AdamW(rate, use_ema=True, ema_momentum=knob))


@kind(table)
def averaged_weights_written_back(rate: float, knob: float) -> keras.Model:
    return compiled(stack(), sgd(rate, use_ema=True, ema_momentum=knob, ema_overwrite_frequency=3))


@kind(table)
def accumulated_gradients(rate: float, knob: float) -> keras.Model:
    return compiled(stack(), adam(rate, gradient_accumulation_steps=4, clipnorm=knob))


@kind(table)
def weight_decay_with_exceptions(rate: float, knob: float) -> keras.Model:
    model, optimizer = stack(), keras.optimizers.AdamW(rate, weight_decay=0.5)
    if knob > 0.5:
        optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    return compiled(model, optimizer)


@kind(tokens)
def masked_recurrence(rate: float, knob: float) -> keras.Model:
    model = keras.Sequential(
        [layers.Embedding(7, 8, mask_zero=True), layers.LSTM(6, dropout=knob), layers.Dense(3, "softmax")]
    )
    return compiled(model, adam(rate))


@kind(tokens)
def attention(rate: float, knob: float) -> keras.Model:
    taken = keras.Input((12,))
    x = layers.Embedding(7, 8)(taken)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4, dropout=knob)(x, x))
    return compiled(keras.Model(taken, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(x))), adam(rate))


@kind(weighted)
def sample_weights(rate: float, knob: float) -> keras.Model:
    return compiled(stack(layers.Dropout(knob)), adam(rate), weighted_metrics=["accuracy"])


@kind(several, metric="which_accuracy")
def several_inputs_and_outputs(rate: float, knob: float) -> keras.Model:
    taken = {"left": keras.Input((5,), name="left"), "right": keras.Input((7,), name="right")}
    x = layers.Dense(8, "gelu")(layers.Concatenate()([taken["left"], taken["right"] * knob]))
    outputs = {"which": layers.Dense(3, "softmax", name="which")(x), "sum": layers.Dense(1, name="sum")(x)}
    model = keras.Model(taken, outputs)
    loss, weights = {"which": SPARSE, "sum": "mse"}, {"which": 1.0, "sum": knob}
    model.compile(adam(rate), loss, metrics={"which": ["accuracy"]}, loss_weights=weights)
    return model


@kind(table, tolerance=5e-3)
def mixed_precision(rate: float, knob: float) -> keras.Model:
    """Halves are added up in another order by each engine: they have three digits."""
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, "relu", dtype="mixed_float16"),
            layers.Dropout(knob, dtype="mixed_float16"),
            layers.Dense(3, "softmax", dtype="float32"),
        ]
    )
    return compiled(model, keras.optimizers.LossScaleOptimizer(sgd(rate), initial_scale=1024.0))


@kind(pictures)
def convolutions(rate: float, knob: float) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.RandomFlip("horizontal"),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=knob),
            layers.ReLU(),
            layers.SpatialDropout2D(knob),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model, adam(rate))


@kind(table)
def dropout_that_never_sleeps(rate: float, knob: float) -> keras.Model:
    """Monte Carlo dropout: evaluation draws from its seed generator too."""
    taken = keras.Input((12,))
    x = layers.Dropout(knob)(layers.Dense(16, "relu")(taken), training=True)
    return compiled(keras.Model(taken, layers.Dense(3, "softmax")(x)), sgd(rate))


@kind(words, shared=False, engines=("fused", "fit"))
def lookups(rate: float, knob: float) -> keras.Model:
    vocabulary = ["yes", "no"] if knob < 0.5 else ["no", "so"]
    lookup = layers.StringLookup(vocabulary=vocabulary)
    taken = keras.Input((), dtype="string")
    x = layers.Embedding(4, 4)(lookup(taken))
    return compiled(keras.Model(taken, layers.Dense(3, "softmax")(x)), adam(rate))


@kind(table)
def adapted_normalization(rate: float, knob: float) -> keras.Model:
    normalization = layers.Normalization()
    normalization.adapt(numbers()[0] * knob)
    return compiled(keras.Sequential([keras.Input((12,)), normalization, layers.Dense(3, "softmax")]), sgd(rate))


@kind(itself, metric="closeness", direction="maximize")
def own_steps_without_a_loss(rate: float, knob: float) -> keras.Model:
    class Auto(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.decode = layers.Dense(3), layers.Dense(12)
            self.total, self.close = keras.metrics.Mean("total_loss"), keras.metrics.Mean("closeness")

        def call(self, x: Any) -> Any:
            return self.decode(self.code(x))

        @property
        def metrics(self) -> list[Any]:
            return [self.total, self.close]

        def told(self, error: Any) -> Any:
            self.total.update_state(error)
            self.close.update_state(1 / (1 + knob * error))
            return {metric.name: metric.result() for metric in self.metrics}

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                error = tf.reduce_mean(tf.square(data[0] - self(data[0], training=True)))
            self.optimizer.apply(tape.gradient(error, self.trainable_weights), self.trainable_weights)
            return self.told(error)

        def test_step(self, data: Any) -> Any:
            return self.told(tf.reduce_mean(tf.square(data[0] - self(data[0]))))

    model = Auto()
    model.compile(adam(rate))
    return model


@kind(itself, metric="closeness", direction="maximize")
def own_steps_that_return_numbers(rate: float, knob: float) -> keras.Model:
    class Auto(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.decode = layers.Dense(3), layers.Dense(12)

        def call(self, x: Any) -> Any:
            return self.decode(self.code(x))

        def told(self, error: Any) -> Any:
            return {"loss": error, "closeness": 1 / (1 + knob * error)}

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                error = tf.reduce_mean(tf.square(data[0] - self(data[0], training=True)))
            self.optimizer.apply(tape.gradient(error, self.trainable_weights), self.trainable_weights)
            return self.told(error)

        def test_step(self, data: Any) -> Any:
            return self.told(tf.reduce_mean(tf.square(data[0] - self(data[0]))))

    model = Auto()
    model.compile(adam(rate))
    return model


@kind(table)
def frozen_base(rate: float, knob: float) -> keras.Model:
    base = stack(layers.BatchNormalization())
    base.trainable = False
    return compiled(keras.Sequential([base, layers.Dropout(knob), layers.Dense(3, "softmax")]), adam(rate))


@kind(doubles)
def doubles_in_own_steps(rate: float, knob: float) -> keras.Model:
    class Net(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                p = self(x, training=True)
                loss = knob * tf.reduce_mean(tf.square(y - p))
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self._loss_tracker.update_state(loss)
            return self.compute_metrics(x, y, p)

    model = Net([keras.Input((12,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    return compiled(model, adam(rate), "mse")


SEEN = tf.Variable(0.0, trainable=False)


@kind(table)
def counter_of_a_module(rate: float, knob: float) -> keras.Model:
    class Fading(layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            if training:
                SEEN.assign_add(knob)
            return x / (1 + SEEN / 10)

    return compiled(stack(Fading()), sgd(rate))


BASE: list[Any] = []


@kind(table)
def layers_of_a_module(rate: float, knob: float) -> keras.Model:
    if not BASE:
        BASE.append(layers.Dense(16, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed=5)))
    model = keras.Sequential([keras.Input((12,)), BASE[0], layers.Dropout(knob), layers.Dense(3, "softmax")])
    return compiled(model, sgd(rate))


@kind(table, fast=True)
def trained_by_names_that_keras_gives(rate: float, knob: float) -> keras.Model:
    """As guides to fine-tuning have it."""
    body = [layers.Dense(16, "relu"), layers.Dense(16, "relu"), layers.Dropout(knob), layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((12,)), *body])
    for layer in model.layers:
        layer.trainable = layer.name in ("dense_1", "dense_2")
    return compiled(model, sgd(rate))


@kind(table, fast=True)
def decayed_by_name(rate: float, knob: float) -> keras.Model:
    names = ("free", "decayed") if knob < 0.5 else ("decayed", "free")
    body = [layers.Dense(12, "relu", name=name) for name in names]
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1.0)
    optimizer.exclude_from_weight_decay(var_names=["free", "head"])
    model = keras.Sequential([keras.Input((12,)), *body, layers.Dense(3, "softmax", name="head")])
    return compiled(model, optimizer)


@kind(table, shared=False, fast=True)
def made_once_and_compiled_again(rate: float, knob: float) -> keras.Model:
    if not BASE:
        begins = keras.initializers.GlorotUniform(seed=5)
        body = [layers.Dense(size, act, kernel_initializer=begins) for size, act in ((16, "relu"), (3, "softmax"))]
        BASE.append(keras.Sequential([keras.Input((12,)), *body]))
        BASE.append(BASE[0].get_weights())
    BASE[0].set_weights(BASE[1])
    return compiled(BASE[0], adam(rate))


@kind(table)
def state_in_lists_and_dictionaries(rate: float, knob: float) -> keras.Model:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.parts = {"body": [layers.Dense(16, "relu")], "head": (layers.Dense(3, "softmax"),)}
            self.seen = [{"steps": tf.Variable(0.0, trainable=False)}]

        def call(self, x: Any) -> Any:
            return self.parts["head"][0](self.parts["body"][0](x))

        def train_step(self, data: Any) -> Any:
            self.seen[0]["steps"].assign_add(knob)
            return super().train_step(data)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs) / (1 + self.seen[0]["steps"])

    return compiled(Net(), adam(rate))


@kind(table, shared=False)
def unseeded_noise(rate: float, knob: float) -> keras.Model:
    class Noise(layers.Layer):
        def call(self, x: Any) -> Any:
            return x + knob * keras.random.normal(ops.shape(x))

    return compiled(stack(Noise()), sgd(rate))


@kind(table)
def state_that_evaluation_changes(rate: float, knob: float) -> keras.Model:
    class Calls(layers.Layer):
        def build(self, shape: Any) -> None:
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.calls.assign_add(knob)
            return x / (1 + self.calls)

    return compiled(stack(Calls()), sgd(rate))
