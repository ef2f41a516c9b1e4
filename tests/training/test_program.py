"""Programs: compiled once, started again exactly."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest
from batchopt import Dataset, Task
from batchopt.errors import ModelError
from batchopt.question.metric import Direction
from batchopt.training.checkpoint import pack, unpack
from batchopt.training.metrics import direction_of
from batchopt.training.program import Program, build, signature, state_of
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from keras.layers import Dense, Dropout, Flatten


def net(learning_rate: float, units: int = 16, dropout: float = 0.3) -> keras.Model:
    model = keras.Sequential([Flatten(), Dense(units, "relu"), Dropout(dropout), Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def task_of(build_model: Any, data: Dataset) -> Task:
    return Task(build_model, lambda path: data)


def fresh(data: Dataset, learning_rate: float = 1e-3, seed: int = 1, **extra: Any) -> keras.Model:
    return build(task_of(net, data), data, learning_rate=learning_rate, extra=extra, seed=seed)


@pytest.fixture
def program(mnist_slice: Dataset) -> Program:
    return Program(task_of(net, mnist_slice), Resident(mnist_slice), "fused", fresh(mnist_slice))


def train(program: Program, trial: int, epochs: range, batch_size: int = 64) -> list[tuple[float, float]]:
    curve = []
    for number in epochs:
        epoch = program.epoch(number, batch_size=batch_size, rng=epoch_rng(0, trial, number))
        curve.append((epoch.train_loss, epoch.value))
    return curve


def test_a_trial_on_a_used_program_is_the_trial_on_a_new_one(program: Program, mnist_slice: Dataset) -> None:
    """Weights, optimizer slots, dropout's seeds and the rate are all put back."""
    curves = []
    for _ in range(2):
        program.prepare(64)
        program.load(state_of(fresh(mnist_slice, seed=trial_seed(0, 5))))
        curves.append(train(program, 5, range(1, 4)))
        program.load(state_of(fresh(mnist_slice, learning_rate=0.5, seed=9)))
        train(program, 6, range(1, 3), batch_size=64)
    assert curves[0] == curves[1]


class AHundredWatts:
    """A device that draws as much in every second, whatever it does."""

    def joules(self) -> float:
        return 100.0 * time.perf_counter()

    def max_power_w(self) -> float:
        return 100.0

    def lacking(self) -> str:
        return ""


def test_energy_is_that_of_training_as_seconds_are(program: Program) -> None:
    figures = program.epoch(1, batch_size=64, rng=epoch_rng(0, 0, 1), meter=AHundredWatts())
    assert figures.joules is not None
    assert 0 <= figures.joules / 100.0 - figures.train_seconds < figures.evaluation_seconds
    assert program.epoch(2, batch_size=64, rng=epoch_rng(0, 0, 2)).joules is None


def test_the_learning_rate_of_a_trial_is_the_one_it_was_built_with(program: Program, mnist_slice: Dataset) -> None:
    program.load(state_of(fresh(mnist_slice, learning_rate=0.0125)))
    assert float(program.model.optimizer.learning_rate) == pytest.approx(0.0125)


def test_a_checkpoint_goes_on_exactly_where_the_trial_was(program: Program, mnist_slice: Dataset) -> None:
    start = state_of(fresh(mnist_slice, seed=3))
    program.prepare(64)
    program.load(start)
    whole = train(program, 2, range(1, 5))
    program.load(start)
    train(program, 2, range(1, 3))
    kept = pack(program.state())
    program.load(state_of(fresh(mnist_slice, seed=8)))
    program.load(unpack(kept))
    assert train(program, 2, range(3, 5)) == whole[2:]


def test_seeds_derive_from_study_trial_and_epoch_alone() -> None:
    orders = {
        tuple(epoch_rng(study, trial, epoch).permutation(50))
        for study in range(3)
        for trial in range(3)
        for epoch in range(1, 4)
    }
    assert len(orders) == 27
    assert len({trial_seed(study, trial) for study in range(30) for trial in range(30)}) == 900
    assert trial_seed(4, 7) == trial_seed(4, 7)


def test_the_same_initial_weights_come_of_the_same_seed_only(mnist_slice: Dataset) -> None:
    one, same, other = (fresh(mnist_slice, seed=seed).get_weights()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_models_that_differ_in_variables_only_share_a_signature(mnist_slice: Dataset) -> None:
    first = signature(fresh(mnist_slice, learning_rate=1e-4, seed=1))
    assert signature(fresh(mnist_slice, learning_rate=1e-1, seed=2)) == first


def test_what_is_compiled_in_changes_the_signature(mnist_slice: Dataset) -> None:
    def scheduled(learning_rate: float) -> keras.Model:
        model = net(learning_rate)
        schedule = keras.optimizers.schedules.ExponentialDecay(learning_rate, 100, 0.9)
        model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def momentum(learning_rate: float) -> keras.Model:
        model = net(learning_rate)
        model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def decayed(learning_rate: float, value: float = 0.9) -> keras.Model:
        model = net(learning_rate)
        model.compile(
            keras.optimizers.Adam(learning_rate, weight_decay=value),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    built = [
        fresh(mnist_slice),
        fresh(mnist_slice, units=8),
        fresh(mnist_slice, dropout=0.5),
        *(
            build(task_of(function, mnist_slice), mnist_slice, learning_rate=rate, extra={}, seed=0)
            for function, rate in ((scheduled, 1e-3), (scheduled, 1e-2), (momentum, 1e-3), (decayed, 1e-3))
        ),
    ]
    assert len({signature(model) for model in built}) == len(built)


def test_precision_changes_the_signature(mnist_slice: Dataset) -> None:
    def half(learning_rate: float) -> keras.Model:
        model = keras.Sequential([Flatten(), Dense(16, dtype="mixed_float16"), Dense(10, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def single(learning_rate: float) -> keras.Model:
        model = keras.Sequential([Flatten(), Dense(16), Dense(10, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    signatures = {
        signature(build(task_of(f, mnist_slice), mnist_slice, learning_rate=1e-3, extra={}, seed=0))
        for f in (half, single)
    }
    assert len(signatures) == 2


def uncompiled(learning_rate: float) -> keras.Model:
    return keras.Sequential([Flatten(), Dense(10)])


def without_metric(learning_rate: float) -> keras.Model:
    model = uncompiled(learning_rate)
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("build_model", "said"),
    [
        (lambda rate: None, "returned NoneType, not a keras.Model"),
        (uncompiled, "not compiled; call model.compile"),
        (without_metric, r"no metric 'accuracy', only loss.*metrics=\['accuracy'\]"),
    ],
)
def test_a_model_that_cannot_be_studied_is_refused_with_what_to_do(
    build_model: Any, said: str, mnist_slice: Dataset
) -> None:
    x, y = mnist_slice.train
    data = Dataset(train=(x, np.eye(10, dtype=np.float32)[y]), validation=(x, np.eye(10, dtype=np.float32)[y]))
    with pytest.raises(ModelError, match=said):
        build(task_of(build_model, data), data, learning_rate=1e-3, extra={}, seed=0)


def test_several_inputs_sample_weights_and_mixed_precision_train() -> None:
    """Data sets are nests of arrays, and loss scaling is Keras' own."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, 3)).astype("float32"), rng.normal(size=(100, 2)).astype("float32")
    y = (a.sum(1) > b.sum(1)).astype("float32")
    data = Dataset(train=({"a": a, "b": b}, y, np.ones(100, np.float32)), validation=({"a": a, "b": b}, y))

    def two_inputs(learning_rate: float) -> keras.Model:
        inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
        joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        out = Dense(1, "sigmoid", dtype="float32")(Dense(8, "relu", dtype="mixed_float16")(joined))
        model = keras.Model(inputs, out)
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(learning_rate))
        model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
        return model

    task = task_of(two_inputs, data)
    program = Program(task, Resident(data), "fused", build(task, data, learning_rate=0.05, extra={}, seed=0))
    start = program.state()
    program.prepare(10)
    program.load(start)
    curve = train(program, 0, range(1, 6), batch_size=10)
    assert curve[-1][0] < curve[0][0]
    assert curve[-1][1] > 0.8


def own_error(y: Any, predicted: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y - predicted), axis=-1)


def neg_mae(y: Any, predicted: Any) -> Any:
    return -own_error(y, predicted)


def my_rmse(y: Any, predicted: Any) -> Any:
    return keras.ops.sqrt(own_error(y, predicted))


LESSER: list[tuple[Any, str]] = [
    *((name, name) for name in ("mae", "MAE", "MSE", "MAPE", "mean_squared_error")),
    *((getattr(keras.losses, name), name) for name in ("huber", "log_cosh")),
    (keras.metrics.MeanAbsoluteError(name="quality"), "quality"),
    (keras.metrics.RootMeanSquaredError(name="neg_rmse"), "neg_rmse"),
    (keras.metrics.FalsePositives(name="fit"), "fit"),
    (keras.losses.Huber(name="robust"), "robust"),
    (my_rmse, "my_rmse"),
    ("accuracy", "loss"),
]
GREATER: list[tuple[Any, str]] = [
    ("accuracy", "accuracy"),
    ("r2_score", "r2_score"),
    ("cosine_similarity", "cosine_similarity"),
    (neg_mae, "neg_mae"),
    (keras.metrics.AUC(name="no_loss"), "no_loss"),
]


def directed(metric: Any, name: str, direction: Direction | None = None) -> Direction:
    """Which way this metric is better, as a task's."""
    x = np.zeros((4, 3), np.float32)
    data = Dataset(train=(x, x[:, :1]), validation=(x, x[:, :1]))

    def model(learning_rate: float) -> keras.Model:
        made = keras.Sequential([keras.Input((3,)), Dense(1, "sigmoid")])
        made.compile("sgd", "mse", metrics=[metric])
        return made

    task = Task(model, lambda path: data, name, direction)
    return direction_of(build(task, data, learning_rate=0.1, extra={}, seed=0), task)


@pytest.mark.parametrize(("metric", "name"), LESSER, ids=[name for _, name in LESSER])
def test_less_of_an_error_is_better_whatever_it_is_called(metric: Any, name: str) -> None:
    assert directed(metric, name) == "minimize"


@pytest.mark.parametrize(("metric", "name"), GREATER, ids=[name for _, name in GREATER])
def test_more_of_a_score_is_better_whatever_it_is_called(metric: Any, name: str) -> None:
    assert directed(metric, name) == "maximize"


def test_where_nothing_tells_it_is_asked_for_in_one_line() -> None:
    def quality(y: Any, predicted: Any) -> Any:
        return own_error(y, predicted)

    with pytest.raises(ModelError, match=r"'quality'.*whether more or less.*direction='maximize' or") as refusal:
        directed(quality, "quality")
    assert "\n" not in str(refusal.value)
    assert directed(quality, "quality", "minimize") == "minimize"
