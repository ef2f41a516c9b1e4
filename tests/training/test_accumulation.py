"""A batch in micro-batches is the whole batch, to 1e-5, for models that do not look at batches as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from batchopt import Dataset, Task
from batchopt.errors import InvalidInput, ModelError
from batchopt.training.accumulation import (
    accumulated_batches,
    accumulating,
    adds_up,
    looked_at,
    looks_at_batches,
    why_not,
)
from batchopt.training.messages import Train
from batchopt.training.probe import choose_engine
from batchopt.training.programs import Programs
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from keras import layers
from models import adam, compiled, several, sgd, stack, table, tokens, weighted

EPOCHS, RATE = 2, 0.05


def plain(rate: float) -> keras.Model:
    return compiled(stack(kernel_regularizer="l2"), adam(rate))


def scaled(rate: float) -> keras.Model:
    return compiled(stack(), keras.optimizers.LossScaleOptimizer(adam(rate), initial_scale=64.0))


def embedding(rate: float) -> keras.Model:
    embedded = [layers.Embedding(7, 8), layers.GlobalAveragePooling1D(), layers.Dense(3, "softmax")]
    return compiled(keras.Sequential([keras.Input((12,)), *embedded]), sgd(rate, momentum=0.9))


def two_outputs(rate: float) -> keras.Model:
    left, right = keras.Input((5,), name="left"), keras.Input((7,), name="right")
    both = layers.Dense(16, "relu")(layers.Concatenate()([left, right]))
    outputs = {"which": layers.Dense(3, "softmax", name="which")(both), "sum": layers.Dense(1, name="sum")(both)}
    model = keras.Model({"left": left, "right": right}, outputs)
    losses = {"which": "sparse_categorical_crossentropy", "sum": "mae"}
    model.compile(sgd(rate, momentum=0.9, clipnorm=1.0), losses, metrics={"which": ["accuracy"]})
    return model


KINDS: dict[str, tuple[Callable[[float], keras.Model], Callable[[], Dataset], str]] = {
    "plain": (plain, table, "accuracy"),
    "weights of examples": (plain, weighted, "accuracy"),
    "a scaled loss": (scaled, table, "accuracy"),
    "an embedding": (embedding, tokens, "accuracy"),
    "several outputs": (two_outputs, several, "which_accuracy"),
}


def curve(kind: str, engine: Any, batch_size: int, micro: int | None) -> list[float | None]:
    build, load, metric = KINDS[kind]
    task, resident = Task(build, lambda path: load(), metric), Resident(load())
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned=engine)
    programs = Programs(task, resident, first, lambda program, batch_size: None)
    figures: list[float | None] = []
    # Between two trials of whole batches, whose programs stay what they are.
    for trial, size in ((0, None), (1, micro), (2, None)):
        programs.begin(
            Train(trial, 0, batch_size, RATE, {}, from_epoch=0, until_epoch=EPOCHS, micro_batch_size=size), print
        )
        for epoch in range(1, EPOCHS + 1):
            done = programs.current.epoch(epoch, batch_size=batch_size, rng=epoch_rng(0, trial, epoch))
            figures += [done.train_loss, done.train_value, done.validation_loss, done.value]
    return figures


CASES = [
    pytest.param(kind, engine, size, micro, marks=[] if (kind, engine) == ("plain", "fused") else [pytest.mark.slow])
    for kind in KINDS
    for engine in ("fused", "fused-xla", "fit")
    for size, micro in ([(64, 24)] if kind != "plain" or engine == "fused" else [(64, 24), (85, 5)])
]


@pytest.mark.parametrize(("kind", "engine", "size", "micro"), CASES)
def test_a_batch_in_micro_batches_is_the_whole_batch(kind: str, engine: Any, size: int, micro: int) -> None:
    """Of 85 examples, in batches whose last micro-batch, and whose last batch, have what is left."""
    assert curve(kind, engine, size, micro) == pytest.approx(curve(kind, engine, size, None), abs=1e-5)


def test_an_optimizer_that_accumulates_is_known_by_how_much() -> None:
    accumulating_four = sgd(0.1, gradient_accumulation_steps=4)
    assert accumulated_batches(accumulating_four) == 4
    assert accumulated_batches(keras.optimizers.LossScaleOptimizer(accumulating_four)) == 4
    assert accumulated_batches(sgd(0.1)) == 1


def own_step(rate: float) -> keras.Model:
    class Net(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    return compiled(Net([keras.Input((12,)), layers.Dense(3)]), sgd(rate))


def test_what_cannot_be_averaged_is_refused_and_what_looks_at_batches_is_known() -> None:
    total = compiled(stack(), sgd(0.1), keras.losses.SparseCategoricalCrossentropy(reduction="sum"))
    assert why_not(total) == "its loss is no mean over a batch, but sum"
    with pytest.raises(ModelError, match="--accumulate: this model cannot be trained in micro-batches, as it has a"):
        accumulating(own_step(0.1), 8)
    normalized = compiled(stack(layers.BatchNormalization()), sgd(0.1))
    nested = keras.Sequential([keras.Input((12,)), normalized, layers.Dense(3)])
    assert looks_at_batches(nested)
    assert why_not(normalized) == "" and looks_at_batches(normalized) and not looks_at_batches(total)


class Divergence(keras.layers.Layer):
    """As the layers of many a variational autoencoder have it."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.1 * keras.ops.sum(keras.ops.square(x)))
        return x


def summed(y: Any, predicted: Any) -> Any:
    return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(y, predicted))


def test_a_loss_that_adds_up_is_known_by_what_it_is_of_the_same_examples_twice() -> None:
    batch = tuple(part[:1] for part in table().train)
    penalty = keras.layers.Dense(4, "relu", activity_regularizer="l2", kernel_regularizer="l2")
    for model, adds in (
        (compiled(stack(), sgd(0.1)), False),
        (compiled(stack(penalty, keras.layers.Dropout(0.5)), sgd(0.1)), False),
        (compiled(stack(Divergence()), sgd(0.1)), True),
        (compiled(stack(), sgd(0.1), summed), True),
    ):
        assert adds_up(model, batch) == adds
        if adds:
            with pytest.raises(ModelError, match="its loss is a sum over a batch"):
                looked_at(model, batch, accumulate=True)


def test_that_batch_normalization_sees_micro_batches_is_said_once() -> None:
    def build(rate: float) -> keras.Model:
        return compiled(stack(layers.BatchNormalization()), sgd(rate))

    task, resident, said = Task(build, lambda path: table()), Resident(table()), []
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned="fused")
    programs = Programs(task, resident, first, lambda program, batch_size: None)
    for trial, micro in ((0, None), (1, 64), (2, 24), (3, 24)):
        asked = Train(trial, 0, 64, RATE, {}, from_epoch=0, until_epoch=1, micro_batch_size=micro)
        programs.begin(asked, said.append)
        assert len(said) == (trial > 1)
    assert "batch normalization normalizes by each micro-batch" in said[0]


@pytest.mark.parametrize("engine", ["fused", pytest.param("fit", marks=pytest.mark.slow)])
def test_an_optimizer_that_accumulates_takes_batches_of_a_part_as_fit_would(engine: Any) -> None:
    """32 examples a step are four batches of 8; of 85, the last step of an epoch goes on in the next one."""

    def build(rate: float) -> keras.Model:
        return compiled(stack(), adam(rate, gradient_accumulation_steps=4))

    task, resident = Task(build, lambda path: table()), Resident(table())
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned=engine)
    programs = Programs(task, resident, first, lambda program, batch_size: None)
    programs.begin(Train(0, 0, 32, RATE, {}, from_epoch=0, until_epoch=EPOCHS), print)
    ours = [programs.current.epoch(epoch, batch_size=32, rng=epoch_rng(0, 0, epoch)) for epoch in (1, 2)]
    assert [epoch.steps for epoch in ours] == [2, 2]

    keras.utils.set_random_seed(trial_seed(0, 0))
    model, theirs = build(RATE), []
    (x, y), validation = table().train, table().validation
    for epoch in (1, 2):
        order = epoch_rng(0, 0, epoch).permutation(len(x))
        model.fit(x[order], y[order], batch_size=8, shuffle=False, verbose=0)
        theirs += model.evaluate(*validation, verbose=0)
    assert [figure for epoch in ours for figure in (epoch.validation_loss, epoch.value)] == pytest.approx(
        theirs, abs=1e-5
    )
    with pytest.raises(InvalidInput, match=r"batch size 30: .* so batch sizes are multiples of 4"):
        programs.begin(Train(1, 0, 30, RATE, {}, from_epoch=0, until_epoch=EPOCHS), print)
