"""An optimizer that averages weights: what counts is what `fit` leaves behind, and training goes on with the others."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from batchopt import Task
from batchopt.training.messages import Train
from batchopt.training.probe import choose_engine
from batchopt.training.programs import Programs
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from models import compiled, sgd, stack, table

EPOCHS, BATCH_SIZE, RATE = 3, 16, 0.2


def averaging(learning_rate: float) -> keras.Model:
    return compiled(stack(), sgd(learning_rate, use_ema=True, ema_momentum=0.9))


def scaled(learning_rate: float) -> keras.Model:
    optimizer = sgd(learning_rate, use_ema=True, ema_momentum=0.9)
    return compiled(stack(), keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0))


def swapping() -> list[keras.callbacks.Callback]:
    return [keras.callbacks.SwapEMAWeights()]


@pytest.mark.parametrize(
    ("build", "engine"),
    [
        (averaging, "fused"),
        pytest.param(averaging, "fit", marks=pytest.mark.slow),
        pytest.param(scaled, "fused-xla", marks=pytest.mark.slow),
    ],
)
def test_what_counts_is_what_fit_leaves_behind_and_both_are_kept(build: Any, engine: Any) -> None:
    task, resident, data = Task(build, lambda path: table()), Resident(table()), table()
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned=engine)
    programs = Programs(task, resident, first, lambda program, batch_size: None)
    programs.begin(Train(0, 0, BATCH_SIZE, RATE, {}, from_epoch=0, until_epoch=EPOCHS), print)
    program, order = programs.current, lambda epoch: epoch_rng(0, 0, epoch)
    ours = [program.epoch(epoch, batch_size=BATCH_SIZE, rng=order(epoch)) for epoch in range(1, EPOCHS + 1)]
    for epochs in range(1, EPOCHS + 1):
        keras.utils.set_random_seed(trial_seed(0, 0))
        model = build(RATE)
        x, y = (
            np.concatenate([part[order(epoch).permutation(len(part))] for epoch in range(1, epochs + 1)])
            for part in data.train
        )
        # All epochs in one call, which averages the weights once, after the last.
        for epoch in range(epochs):
            batch = slice(epoch * len(data.train[0]), (epoch + 1) * len(data.train[0]))
            for start in range(batch.start, batch.stop, BATCH_SIZE):
                part = slice(start, min(start + BATCH_SIZE, batch.stop))
                model.train_on_batch(x[part], y[part])
        raw = model.evaluate(*data.validation, batch_size=1000, verbose=0, return_dict=True)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        averaged = model.evaluate(*data.validation, batch_size=1000, verbose=0, return_dict=True)
        mine = ours[epochs - 1]
        assert (mine.raw_loss, mine.raw_value) == pytest.approx((raw["loss"], raw["accuracy"]), abs=1e-5)
        assert (mine.validation_loss, mine.value) == pytest.approx((averaged["loss"], averaged["accuracy"]), abs=1e-5)
        assert abs(raw["loss"] - averaged["loss"]) > 1e-3


@pytest.mark.slow
def test_a_callback_that_swaps_them_in_has_its_way_and_training_goes_on_raw() -> None:
    """Keras' own, which validates with the averages: its figures are those of the averages too."""
    curves = []
    for callbacks in (None, swapping):
        task, resident = Task(averaging, lambda path: table(), callbacks=callbacks), Resident(table())
        first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned="fused")
        programs = Programs(task, resident, first, lambda program, batch_size: None)
        programs.begin(Train(0, 0, BATCH_SIZE, RATE, {}, from_epoch=0, until_epoch=EPOCHS), print)
        curves.append(
            [
                programs.current.epoch(
                    epoch, batch_size=BATCH_SIZE, rng=epoch_rng(0, 0, epoch), callbacks=programs.callbacks
                )
                for epoch in range(1, EPOCHS + 1)
            ]
        )
    for without, swapped in zip(*curves, strict=True):
        assert swapped.train_loss == pytest.approx(without.train_loss, abs=1e-5)
        assert swapped.validation_loss == pytest.approx(without.validation_loss, abs=1e-5)
        assert swapped.raw_loss == pytest.approx(without.validation_loss, abs=1e-5)


def test_nothing_is_kept_twice_where_nothing_is_averaged() -> None:
    task, resident = Task(lambda rate: compiled(stack(), sgd(rate)), lambda path: table()), Resident(table())
    program, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned="fused")
    program.prepare(BATCH_SIZE)
    figures = program.epoch(1, batch_size=BATCH_SIZE, rng=np.random.default_rng(0))
    assert figures.raw_loss is None and figures.raw_value is None
