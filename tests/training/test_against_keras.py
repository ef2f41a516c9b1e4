"""Every trial is what `fit(epochs=n)` makes of its model: each epoch's figures, in each engine, for many kinds.

Several trials that differ in rate, in an extra dimension and in batch size share one worker's programs, as in a study.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import statistics
import time
from typing import Any

import keras
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.question.task import take
from batchopt.training.checkpoint import pack
from batchopt.training.class_weight import weighed
from batchopt.training.figures import flat
from batchopt.training.messages import Save, Setup, Train
from batchopt.training.names import number_anew
from batchopt.training.probe import choose_engine
from batchopt.training.programs import Programs
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from batchopt.workers.client import Worker
from models import BASE, KINDS, SEEN, Kind
from recipes import RECIPES, Recipe

EPOCHS = 2
TRIALS = [(0.05, 0.25, 16), (0.02, 0.75, 32), (0.1, 0.25, 16)]
"""Rate, knob, batch size; every one of them leaves a partial last batch."""

OF_AN_OUTPUT = ("which_loss", "sum_loss")
"""Keras weighs all batches alike in the loss of one output of several, also the partial one, since it traces for
batches whose size it does not know. The fused engines know it, and weigh by it, as Keras itself does in `loss`."""

RESUMED = ["dropout_of_a_subclass", "unseeded_noise", "counter_of_a_module", "averaged_weights", "mixed_precision"]


def programs_of(kind: Kind, engine: Any) -> Programs:
    """As a worker has them after its probe."""
    task = Task(kind.build, lambda path: kind.data(), kind.metric, direction=kind.direction)
    resident = Resident(kind.data())
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={"knob": 0.25}, pinned=engine)
    return Programs(task, resident, first, lambda program, batch_size: None)


def request(trial: int, **changes: Any) -> Train:
    rate, knob, batch_size = TRIALS[trial]
    asked = Train(trial, 0, batch_size, rate, {"knob": knob}, from_epoch=0, until_epoch=EPOCHS)
    return dataclasses.replace(asked, **changes)


def figures_of(programs: Programs, asked: Train, start: int = 0) -> list[dict[str, float]]:
    """Every figure of every epoch of a trial."""
    engine, curve = programs.current.engine, []
    for number in range(start + 1, asked.until_epoch + 1):
        train = engine.train(epoch_rng(0, asked.trial, number), asked.batch_size)
        curve.append(train | {f"val_{name}": value for name, value in engine.evaluate().items()})
    return curve


def as_imported() -> None:
    """What training has changed in a module is as in a new process."""
    SEEN.assign(0.0)
    BASE.clear()
    number_anew()


@functools.cache
def by_keras(name: str, engine: str) -> list[list[dict[str, float]]]:
    """The same trials by Keras alone, each as in a new process; compiled as the engine has it, `fit` as the user has.

    XLA draws other random numbers than TensorFlow from one seed.
    """
    kind, curves = KINDS[name], []
    data = Resident(kind.data()).data
    examples = len(tf.nest.flatten(data.train)[0])
    validation = data.validation
    if len(validation) == 1:
        # As a tuple, which `fit` would not hand over otherwise.
        validation = tf.data.Dataset.from_tensor_slices(validation).batch(1000)
    for trial, (rate, knob, batch_size) in enumerate(TRIALS):
        as_imported()
        keras.utils.set_random_seed(trial_seed(0, trial))
        model = kind.build(rate, knob=knob)
        if engine != "fit":
            model.jit_compile = engine == "fused-xla"

        def batches(trial: int = trial, batch_size: int = batch_size) -> Any:
            for epoch in range(1, EPOCHS + 1):
                order = epoch_rng(0, trial, epoch).permutation(examples)
                for start in range(0, examples, batch_size):
                    yield take(data.train, order[start : start + batch_size])

        spec = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), tf.string if leaf.dtype == object else leaf.dtype),
            data.train,
        )
        history = model.fit(
            tf.data.Dataset.from_generator(batches, output_signature=spec),
            epochs=EPOCHS,
            steps_per_epoch=-(-examples // batch_size),
            validation_data=validation,
            validation_batch_size=1000,
            shuffle=False,
            verbose=0,
        ).history
        curves.append([flat({name: values[epoch] for name, values in history.items()}) for epoch in range(EPOCHS)])
    return curves


def assert_same(ours: list[dict[str, float]], theirs: list[dict[str, float]], tolerance: float) -> None:
    for epoch, (mine, keras_own) in enumerate(zip(ours, theirs, strict=True), 1):
        assert mine.keys() == flat(keras_own).keys()
        for name, value in keras_own.items():
            if name.removeprefix("val_") in OF_AN_OUTPUT:
                continue
            difference = abs(mine[name] - value) / max(1.0, abs(value))
            assert difference <= tolerance, f"epoch {epoch}, {name}: {mine[name]} and not {value}"


ALL = [
    pytest.param(name, engine, marks=[] if kind.fast and engine == "fused" else [pytest.mark.slow])
    for name, kind in KINDS.items()
    for engine in kind.engines
]


@pytest.mark.parametrize(("name", "engine"), ALL)
def test_every_trial_is_what_fit_makes_of_its_model(name: str, engine: str) -> None:
    """And those that differ in the rate alone share a program, where that is certain to be right."""
    kind, theirs = KINDS[name], by_keras(name, engine)
    as_imported()
    programs, used = programs_of(kind, engine), []
    for trial in range(len(TRIALS)):
        asked = request(trial)
        programs.begin(asked, print)
        used.append(programs.current)
        assert_same(figures_of(programs, asked), theirs[trial], kind.tolerance)
    assert used[1] is not used[0]
    assert (used[2] is used[0]) == kind.shared


def epochs_of(recipe: Recipe, engine: Any, batch_size: int) -> list[dict[str, float | None]]:
    """The figures that a study keeps of each epoch of a trial, as a worker has them."""
    given = recipe.data()
    if recipe.batches is not None:
        examples = len(given.train[0])
        given = Dataset(recipe.batches, validation=given.validation, train_examples=examples)
    resident = Resident(weighed(given, recipe.class_weight))
    how = {"class_weight": recipe.class_weight, "callbacks": recipe.callbacks}
    task = Task(recipe.build, lambda path: given, recipe.metric, **how)
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned=engine, trial_epochs=EPOCHS)
    programs = Programs(task, resident, first, lambda program, batch_size: None, epochs=EPOCHS)
    asked = Train(0, 0, batch_size, 0.05, {}, from_epoch=0, until_epoch=EPOCHS, micro_batch_size=recipe.micro)
    programs.begin(asked, print)
    curve: list[dict[str, float | None]] = []
    for number in range(1, EPOCHS + 1):
        callbacks, rng = programs.callbacks, epoch_rng(0, 0, number)
        done = programs.current.epoch(number, batch_size=batch_size, rng=rng, callbacks=callbacks)
        validation = {"val_loss": done.validation_loss, f"val_{recipe.metric}": done.value}
        raw = {"val_loss": done.raw_loss, f"val_{recipe.metric}": done.raw_value}
        curve.append(
            {"loss": done.train_loss, recipe.metric: done.train_value, **(raw if done.raw_loss else validation)}
        )
        if callbacks is not None and callbacks.stopped:
            break
    if not recipe.callbacks:
        # With callbacks that give back better weights, what is left is not what counted.
        curve.append({name.removeprefix("val_"): value for name, value in validation.items()})
    programs.finish()
    figures = programs.current.engine.evaluate()
    return [*curve, {name: figures[name] for name in ("loss", recipe.metric)}]


def recipe_by_keras(recipe: Recipe, batch_size: int) -> list[dict[str, float]]:
    """The same by `fit`, and what `evaluate` says of what it leaves behind."""
    keras.utils.set_random_seed(trial_seed(0, 0))
    model, data = recipe.build(0.05), recipe.data()
    examples, size = len(data.train[0]), batch_size // recipe.of_a_step
    how: dict[str, Any] = {"validation_data": data.validation, "validation_batch_size": 1000, "verbose": 0}
    if recipe.batches is None:

        def batches() -> Any:
            for epoch in range(1, EPOCHS + 1):
                order = epoch_rng(0, 0, epoch).permutation(examples)
                for start in range(0, examples, size):
                    yield tuple(part[order[start : start + size]] for part in data.train)

        spec = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in data.train)
        history = model.fit(
            tf.data.Dataset.from_generator(batches, output_signature=spec),
            epochs=EPOCHS,
            steps_per_epoch=-(-examples // size),
            class_weight=recipe.class_weight,
            callbacks=recipe.callbacks and recipe.callbacks(),
            shuffle=False,
            **how,
        ).history
    else:
        # Keras shuffles the batches of a PyDataset by Python's generator. Averages take the weights' place at the end.
        class Seeding(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                random.seed(int(epoch_rng(0, 0, epoch + 1).integers(2**31)))

        history = model.fit(recipe.batches(size), epochs=EPOCHS, callbacks=[Seeding()], **how).history
    names = ("loss", recipe.metric, "val_loss", f"val_{recipe.metric}")
    curve = [{name: history[name][epoch] for name in names} for epoch in range(len(history["loss"]))]
    left = model.evaluate(*data.validation[:2], sample_weight=(*data.validation, None)[2], verbose=0, return_dict=True)
    final = {name: left[name] for name in ("loss", recipe.metric)}
    return [*curve, *([] if recipe.callbacks else [final]), final]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "engine"),
    [
        (name, engine)
        for name, recipe in RECIPES.items()
        for engine in ("fused", "fused-xla", "fit")
        if engine == "fit" or (recipe.batches is None and name != "callbacks around batches")
    ],
)
def test_a_recipe_is_what_fit_and_evaluate_make_of_it(name: str, engine: str) -> None:
    """Epoch by epoch, and in the end what is left behind; what counts of averaged weights is what is left behind."""
    ours, theirs = epochs_of(RECIPES[name], engine, 16), recipe_by_keras(RECIPES[name], 16)
    assert len(ours) == len(theirs)
    for mine, keras_own in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(keras_own, abs=1e-5, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fused", "fused-xla", "fit"])
@pytest.mark.parametrize("name", ["keras_own", "dropout_of_a_subclass", "unseeded_noise"])
def test_a_first_epoch_takes_what_every_epoch_takes_whether_a_program_is_reused_or_made(name: str, engine: str) -> None:
    """In processor seconds, the least of several, so that others on the machine do not matter.

    Kernels that building a model has had TensorFlow drop would be made again in it, with five times as much or more.
    """
    programs = programs_of(KINDS[name], engine)
    first: list[float] = []
    later: list[float] = []
    for trial in (0, 2, 0, 2):
        asked = request(trial)
        programs.begin(asked, print)
        for spent in (first, later, later, later):
            started = time.process_time()
            programs.current.engine.train(epoch_rng(0, trial, 1), asked.batch_size)
            spent.append(time.process_time() - started)
    assert min(first) < 2 * statistics.median(later), (first, later)


def test_what_a_callback_sets_of_a_model_is_not_in_the_next_trial() -> None:
    """A layer that is frozen is so for whoever traces its model next."""
    name = "trained_by_names_that_keras_gives"
    programs, theirs = programs_of(KINDS[name], "fused"), by_keras(name, "fused")
    programs.begin(request(0), print)
    assert_same(figures_of(programs, request(0)), theirs[0], KINDS[name].tolerance)
    for layer in programs.current.model.layers:
        layer.trainable = False
    programs.current.model.optimizer.momentum = 0.99
    programs.begin(request(1), print)
    assert_same(figures_of(programs, request(1)), theirs[1], KINDS[name].tolerance)


@pytest.mark.parametrize("name", ["two_optimizers", *(pytest.param(name, marks=pytest.mark.slow) for name in RESUMED)])
def test_a_trial_goes_on_from_its_checkpoint_where_it_was(name: str) -> None:
    programs, theirs = programs_of(KINDS[name], "fused"), by_keras(name, "fused")[0]
    half = request(0, until_epoch=1)
    programs.begin(half, print)
    figures_of(programs, half)
    kept = pack(programs.current.state())

    # As in another process, whose modules are as they are imported.
    SEEN.assign(0.0)
    programs, said = programs_of(KINDS[name], "fused"), []
    asked = request(0, from_epoch=1, checkpoint=kept)
    assert programs.begin(asked, said.append)[1] == 1
    assert_same(figures_of(programs, asked, start=1), theirs[1:], KINDS[name].tolerance)

    older = pack(programs.current.state()[:-1])
    assert programs.begin(request(0, from_epoch=1, checkpoint=older), said.append)[1] == 0
    assert_same(figures_of(programs, asked), theirs, KINDS[name].tolerance)
    assert len(said) == 1 and "it starts over" in said[0]


@pytest.mark.slow
def test_a_new_process_goes_on_from_a_checkpoint_and_knows_the_model_again() -> None:
    kind = KINDS["two_optimizers"]
    task = Task(kind.build, lambda path: kind.data(), kind.metric, direction=kind.direction)
    setup = Setup(task, None, None, "cpu", None, "fused", 0.04, {"knob": 0.25})
    ready, done, checkpoint = [], [], None
    for epoch in range(EPOCHS):
        worker = Worker(setup)
        ready.append(worker.receive())
        worker.send(request(0, from_epoch=epoch, until_epoch=epoch + 1, checkpoint=checkpoint))
        done.append(worker.receive())
        worker.send(Save(0))
        checkpoint = worker.receive().checkpoint
        worker.kill()
    assert ready[0].program == ready[1].program
    assert ready[0].program.form
    theirs = by_keras("two_optimizers", "fused")[0]
    for mine, keras_own in zip(done, theirs, strict=True):
        assert mine.figures.train_loss == pytest.approx(keras_own["loss"], abs=1e-5)
        assert mine.figures.validation_loss == pytest.approx(keras_own["val_loss"], abs=1e-5)
