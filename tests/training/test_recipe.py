"""What `build_model` is given by name, and what it makes of it: a recipe that follows the batch size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from batchopt import Dataset, Task
from batchopt.training.messages import Train
from batchopt.training.probe import choose_engine
from batchopt.training.programs import Programs
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from keras.layers import Dense, Flatten

EPOCHS = 2


def programs_of(build_model: Any, data: Dataset) -> Programs:
    task, resident = Task(build_model, lambda path: data), Resident(data)
    first, _ = choose_engine(task, resident, learning_rate=0.05, extra={}, pinned="fused", trial_epochs=EPOCHS)
    return Programs(task, resident, first, lambda program, batch_size: None, epochs=EPOCHS)


def asked_for(trial: int, batch_size: int, learning_rate: float = 0.05, **extra: Any) -> Train:
    return Train(trial, 0, batch_size, learning_rate, extra, from_epoch=0, until_epoch=EPOCHS)


def compiled(optimizer: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(10, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_function_is_given_what_it_has_arguments_for_and_nothing_else(mnist_slice: Dataset) -> None:
    given: list[dict[str, Any]] = []

    def build_model(
        learning_rate: float, *, batch_size: int, steps_per_epoch: int, epochs: int, trial_seed: int
    ) -> Any:
        given.append({"size": batch_size, "steps": steps_per_epoch, "epochs": epochs, "seed": trial_seed})
        return compiled(keras.optimizers.SGD(learning_rate))

    programs = programs_of(build_model, mnist_slice)
    programs.begin(asked_for(3, 32), print)
    assert given[-1] == {"size": 32, "steps": 11, "epochs": EPOCHS, "seed": trial_seed(0, 3)}
    assert programs_of(lambda learning_rate, **rest: compiled("sgd") if not rest else None, mnist_slice)


def test_an_extra_dimension_of_the_same_name_goes_first(mnist_slice: Dataset) -> None:
    task = Task(lambda learning_rate, epochs: epochs, lambda path: mnist_slice)
    assert task.built(0.1, {"epochs": 7}, {"epochs": 2, "batch_size": 16}) == 7


def test_a_schedule_over_the_steps_of_a_trial_trains_as_keras_trains_it(mnist_slice: Dataset) -> None:
    """Of each batch size its own schedule, though trials of several sizes take turns in one worker."""

    def build_model(learning_rate: float, steps_per_epoch: int, epochs: int) -> Any:
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps_per_epoch * epochs)
        return compiled(keras.optimizers.SGD(schedule, momentum=0.9))

    programs = programs_of(build_model, mnist_slice)
    for trial, batch_size in enumerate([16, 64, 16]):
        programs.begin(asked_for(trial, batch_size), print)
        ours = [programs.current.engine.train(epoch_rng(0, trial, epoch), batch_size) for epoch in (1, 2)]

        keras.utils.set_random_seed(trial_seed(0, trial))
        model = build_model(0.05, -(-330 // batch_size), EPOCHS)
        for epoch, figures in zip((1, 2), ours, strict=True):
            order = epoch_rng(0, trial, epoch).permutation(330)
            x, y = (array[order] for array in mnist_slice.train)
            theirs = model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0).history
            assert figures["loss"] == pytest.approx(theirs["loss"][0], abs=1e-5)
        assert np.isclose(float(model.optimizer.learning_rate), 0.0, atol=1e-9)


def test_an_optimizer_that_ignores_the_rate_is_told_of_once(mnist_slice: Dataset) -> None:
    said: list[str] = []
    programs = programs_of(lambda learning_rate: compiled(keras.optimizers.Adam()), mnist_slice)
    for trial, rate in enumerate([0.1, 0.1, 0.01, 0.001]):
        programs.begin(asked_for(trial, 32, rate), said.append)
        assert len(said) == (trial > 1)
    assert "learning rates 0.1 and 0.01" in said[0]


def test_one_that_uses_it_in_whatever_way_is_not(mnist_slice: Dataset) -> None:
    """As a number, in a schedule, or as the rate of a second optimizer."""

    def scheduled(learning_rate: float) -> Any:
        return compiled(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(learning_rate, 10, 0.9)))

    for build_model in (lambda learning_rate: compiled(keras.optimizers.Adam(learning_rate)), scheduled):
        said: list[str] = []
        programs = programs_of(build_model, mnist_slice)
        for trial, rate in enumerate([0.1, 0.01, 0.1]):
            programs.begin(asked_for(trial, 32, rate), said.append)
        assert said == []
