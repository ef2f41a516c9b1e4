"""Gradients looked at while trials train: their noise as it is, and nothing changed by looking."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.datasets import load_mnist
from batchopt.measured import EngineName, Epoch
from batchopt.search.laws import gradient_noise_scale
from batchopt.training.messages import Train
from batchopt.training.noise import BIG, COST_SHARE, SMALL, NoiseMeter, NoiseWatch
from batchopt.training.program import Program, build
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng
from keras.layers import BatchNormalization, Dense, Dropout, Flatten


def net(learning_rate: float) -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(16, "relu"), Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def shaky(learning_rate: float) -> keras.Model:
    layers = [Flatten(), Dense(16, "relu"), BatchNormalization(), Dropout(0.3), Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((28, 28)), *layers])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def data() -> Dataset:
    images, labels = load_mnist().train
    return Dataset(train=(images[:3000], labels[:3000]), validation=(images[3000:3200], labels[3000:3200]))


def program_of(build_model: Any, data: Dataset, engine: EngineName = "fused") -> Program:
    task = Task(build_model, lambda path: data)
    program = Program(task, Resident(data), engine, build(task, data, learning_rate=3e-3, extra={}, seed=1))
    start = program.state()
    program.prepare(64)
    program.load(start)
    return program


def train(program: Program, epochs: int, watch: NoiseWatch | None = None) -> list[Epoch]:
    curve = []
    for number in range(1, epochs + 1):
        figures = program.epoch(number, batch_size=64, rng=epoch_rng(0, 0, number))
        curve.append(figures if watch is None else watch.look(program, request(), figures))
    return curve


def request(batch_size: int = 64) -> Train:
    return Train(0, 0, batch_size, 3e-3, {}, 0, 99)


def watch_of(said: list[str], monkeypatch: pytest.MonkeyPatch, share: float = 1e9) -> NoiseWatch:
    monkeypatch.setattr("batchopt.training.noise.COST_SHARE", share)
    return NoiseWatch(said.append)


def test_the_noise_scale_is_that_of_each_examples_gradient(data: Dataset) -> None:
    """tr(Sigma) / |G|^2 from all 3000 gradients, against 40 looks, numerator and denominator averaged separately."""
    program = program_of(net, data)
    train(program, 1)
    model = program.model

    def gradient(image: Any, label: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=label[None], y_pred=model(image[None], training=True))
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        return tf.concat([tf.reshape(part, [-1]) for part in gradients], 0)

    each = tf.function(lambda x, y: tf.map_fn(lambda one: gradient(*one), (x, y), fn_output_signature=tf.float32))
    gradients = np.concatenate([each(*(part[at : at + 500] for part in data.train)) for at in range(0, 3000, 500)])
    signal = (gradients.mean(0).astype(float) ** 2).sum()
    direct = gradients.var(0).astype(float).sum() / signal

    meter, rng = NoiseMeter(model, data), np.random.default_rng(0)
    looks = [meter.measure(rng) for _ in range(40)]
    small, big = (float(np.mean([look[name] for look in looks])) for name in ("sq_norm_small", "sq_norm_big"))
    measured = gradient_noise_scale(small, big, small=SMALL, big=BIG)
    print(f"direct {direct:.0f}, measured {measured:.0f}")
    assert direct / 1.5 < measured < 1.5 * direct


def test_looking_changes_nothing_of_a_trial(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving averages and dropout's seeds included: the same curve, bit for bit."""
    said: list[str] = []
    seen = train(program_of(shaky, data), 3, watch_of(said, monkeypatch))
    unseen = train(program_of(shaky, data), 3)
    assert all(figures.noise_small == SMALL and figures.sq_norm_small > 0 for figures in seen)  # type: ignore[operator]
    assert said == []

    def curve(epochs: list[Epoch]) -> list[tuple[float, float, float]]:
        return [(epoch.train_loss, epoch.validation_loss, epoch.value) for epoch in epochs]

    assert curve(seen) == curve(unseen)


def test_looking_costs_no_more_than_its_share(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    program, watch = program_of(net, data), watch_of(said, monkeypatch, share=0.05)
    epoch = train(program, 1)[0]
    seen = [watch.look(program, request(), epoch) for _ in range(2000)]
    spent = sum(figures.noise_seconds or 0.0 for figures in seen)
    assert 0 < spent <= 0.05 * sum(figures.train_seconds for figures in seen) + 0.5
    assert seen[0].noise_small is None, "nothing has been trained yet that would pay for it"
    assert COST_SHARE < 0.02


def test_smaller_batches_and_diverged_epochs_are_left_alone(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    program, watch = program_of(net, data), watch_of(said, monkeypatch)
    epoch = train(program, 1)[0]
    assert watch.look(program, request(SMALL // 2), epoch) == epoch
    assert said == []


def test_a_model_without_a_plain_gradient_is_left_alone_and_it_is_said_once(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            return super().train_step(batch)

    def own(learning_rate: float) -> keras.Model:
        model = Own([keras.Input((28, 28)), Flatten(), Dense(10, "softmax")])
        model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    said: list[str] = []
    epochs = train(program_of(own, data), 3, watch_of(said, monkeypatch))
    assert [epoch.noise_small for epoch in epochs] == [None] * 3
    assert said == ["the gradient noise scale is not measured: the model has a train_step of its own"]
