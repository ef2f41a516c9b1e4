"""Callbacks are called as `fit` calls them: same calls, same logs, same weights, paused and carried or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Task
from batchopt.errors import InvalidInput, ModelError
from batchopt.training.callbacks import TrialCallbacks, engine_of_callbacks
from batchopt.training.carried import carried, carry_on
from batchopt.training.messages import Train
from batchopt.training.probe import choose_engine
from batchopt.training.programs import Programs
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from models import EXAMPLES, compiled, sgd, stack, table

# Keras 3.15 reads variables in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EPOCHS, BATCH_SIZE, RATE = 6, 16, 0.3
CALLS = (
    *("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_test_begin", "on_test_end"),
    *("on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin", "on_test_batch_end"),
)


def build_model(learning_rate: float) -> keras.Model:
    return compiled(stack(), sgd(learning_rate))


def programs_of(callbacks: Callable[..., Any], engine: Any = "fused") -> Programs:
    task, resident = Task(build_model, lambda path: table(), callbacks=callbacks), Resident(table())
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned=engine, trial_epochs=EPOCHS)
    return Programs(task, resident, first, lambda program, batch_size: None, epochs=EPOCHS)


def asked_for(trial: int, **more: Any) -> Train:
    return Train(trial, 0, BATCH_SIZE, RATE, {}, **({"from_epoch": 0, "until_epoch": EPOCHS} | more))


def train(programs: Programs, trial: int, start: int = 0, until: int = EPOCHS) -> list[float]:
    """As a worker does; the validation loss of each epoch."""
    losses = []
    for number in range(start + 1, until + 1):
        callbacks = programs.callbacks
        assert callbacks is not None
        figures = programs.current.epoch(
            number, batch_size=BATCH_SIZE, rng=epoch_rng(0, trial, number), callbacks=callbacks
        )
        losses.append(figures.validation_loss)
        if callbacks.stopped:
            break
    return losses


def by_keras(callbacks: list[Any], trial: int = 0) -> tuple[list[float], keras.Model]:
    keras.utils.set_random_seed(trial_seed(0, trial))
    model, data = build_model(RATE), table()

    def batches() -> Any:
        for epoch in range(1, EPOCHS + 1):
            order = epoch_rng(0, trial, epoch).permutation(EXAMPLES)
            for start in range(0, EXAMPLES, BATCH_SIZE):
                yield tuple(array[order[start : start + BATCH_SIZE]] for array in data.train)

    spec = (tf.TensorSpec((None, 12), tf.float32), tf.TensorSpec((None,), tf.int64))
    history = model.fit(
        tf.data.Dataset.from_generator(batches, output_signature=spec),
        epochs=EPOCHS,
        steps_per_epoch=-(-EXAMPLES // BATCH_SIZE),
        validation_data=data.validation,
        validation_batch_size=1000,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return history.history["val_loss"], model


class Recorder(keras.callbacks.Callback):
    """Writes down each call that it knows of, its number and its logs."""

    def __init__(self, calls: tuple[str, ...]) -> None:
        super().__init__()
        self.seen: list[Any] = []
        for name in calls:
            setattr(self, name, self.noting(name))

    def noting(self, name: str) -> Callable[..., None]:
        def note(number: Any = None, logs: Any = None) -> None:
            if isinstance(number, dict):
                number, logs = None, number
            self.seen.append((name, number, {key: round(float(value), 4) for key, value in (logs or {}).items()}))

        return note


def rate_falls(epoch: int, rate: float) -> float:
    return rate * 0.5 if epoch == 2 else rate


KINDS: dict[str, Callable[[], list[Any]]] = {
    "early stopping": lambda: [keras.callbacks.EarlyStopping(patience=1, min_delta=0.05, restore_best_weights=True)],
    "a falling rate": lambda: [keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=0.05, factor=0.3)],
    "a schedule": lambda: [keras.callbacks.LearningRateScheduler(rate_falls)],
    "both": lambda: [
        keras.callbacks.ReduceLROnPlateau(monitor="val_accuracy", patience=1, min_delta=0.2),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, min_delta=0.1),
    ],
}


SLOW = ("a falling rate", "a schedule", "both")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in KINDS]
)
def test_keras_own_train_as_under_fit_whole_paused_and_in_another_process(kind: str) -> None:
    theirs, model = by_keras(KINDS[kind]())
    programs = programs_of(KINDS[kind])
    programs.begin(asked_for(0), print)
    assert train(programs, 0) == pytest.approx(theirs, abs=1e-5)
    programs.finish()
    for mine, keras_own in zip(programs.current.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, atol=1e-5)

    # Paused for another trial, in the same process, and gone on with in another one.
    programs.begin(asked_for(1), print)
    first = train(programs, 1, until=2)
    kept = programs.packed()
    programs.begin(asked_for(2), print)
    train(programs, 2, until=1)
    assert programs.begin(asked_for(1, from_epoch=2, checkpoint=kept), print)[1] == 2
    same = first + train(programs, 1, start=2)
    assert same == pytest.approx(by_keras(KINDS[kind](), trial=1)[0], abs=1e-5)
    other = programs_of(KINDS[kind])
    assert other.begin(asked_for(1, from_epoch=2, checkpoint=kept), print)[1] == 2
    assert first + train(other, 1, start=2) == pytest.approx(same, abs=1e-5)


@pytest.mark.parametrize(("engine", "calls"), [("fused", CALLS[:6]), ("fit", CALLS)])
def test_own_callbacks_see_what_fit_shows_them(engine: str, calls: tuple[str, ...]) -> None:
    """In its order, with its numbers and names; around batches where `fit` trains, and else around epochs."""
    theirs, made = Recorder(calls), []

    def make() -> list[Any]:
        made.append(Recorder(calls))
        return made[-1:]

    by_keras([theirs])
    programs = programs_of(make)
    assert programs.current.engine.name == engine
    programs.begin(asked_for(0), print)
    train(programs, 0)
    programs.finish()
    assert len(made[-1].seen) == len(theirs.seen)
    for mine, keras_own in zip(made[-1].seen, theirs.seen, strict=True):
        assert mine[:2] == keras_own[:2]
        assert mine[2] == pytest.approx(keras_own[2], abs=2e-4)


@pytest.mark.slow
def test_one_that_stops_within_an_epoch_ends_that_epoch_there() -> None:
    def make() -> list[Any]:
        return [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: stop(holder[-1], batch))]

    holder: list[Any] = []

    def stop(model: Any, batch: int) -> None:
        model.stop_training = batch == 2

    programs = programs_of(make)
    programs.begin(asked_for(0), print)
    holder.append(programs.current.model)
    assert len(train(programs, 0)) == 1
    assert int(programs.current.model.optimizer.iterations) == 3


def test_what_is_more_than_plain_values_starts_over_in_another_process_and_goes_on_in_the_same() -> None:
    seen: list[int] = []

    def make() -> list[Any]:
        return [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))]

    said: list[str] = []
    programs = programs_of(make)
    programs.begin(asked_for(0), said.append)
    train(programs, 0, until=2)
    kept = programs.packed()
    programs.begin(asked_for(1), said.append)
    assert programs.begin(asked_for(0, from_epoch=2, checkpoint=kept), said.append)[1] == 2
    assert seen == [0, 1] and said == []

    assert programs_of(make).begin(asked_for(0, from_epoch=2, checkpoint=kept), said.append)[1] == 0
    assert len(said) == 1 and "its callbacks (LambdaCallback)" in said[0] and "it starts over" in said[0]


class Counting(keras.callbacks.Callback):
    """Of a user's, with plain values."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.seen: dict[str, Any] = {"losses": [], "least": (None, np.float32(np.inf))}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen["losses"].append(logs["val_loss"])
        self.seen["least"] = min(self.seen["least"], (epoch, np.float32(logs["val_loss"])), key=lambda pair: pair[1])
        if len(self.seen["losses"]) == self.limit:
            self.model.stop_training = True


def test_own_ones_with_plain_values_go_on_in_another_process() -> None:
    programs = programs_of(lambda epochs: Counting(epochs - 1))
    programs.begin(asked_for(0), print)
    first = train(programs, 0, until=2)
    kept = programs.packed()
    other = programs_of(lambda epochs: Counting(epochs - 1))
    assert other.begin(asked_for(0, from_epoch=2, checkpoint=kept), print)[1] == 2
    losses = first + train(other, 0, start=2)
    assert len(losses) == EPOCHS - 1
    assert other.callbacks is not None
    assert other.callbacks.own[0].seen["losses"] == pytest.approx(losses)
    assert other.callbacks.own[0].seen["least"][1] == pytest.approx(min(losses), abs=1e-6)


def test_one_that_holds_a_variable_of_its_model_is_never_given_another_trials() -> None:
    """The loss has a factor that a callback changes; each trial has a factor of its own."""
    made: dict[str, Any] = {}

    def build(learning_rate: float) -> keras.Model:
        made["factor"] = factor = keras.Variable(1.0, trainable=False)

        def loss(y: Any, p: Any) -> Any:
            return factor * keras.losses.sparse_categorical_crossentropy(y, p)

        return compiled(stack(), sgd(learning_rate), loss)

    def make() -> list[Any]:
        factor = made["factor"]
        return [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: factor.assign(0.5**epoch))]

    task, resident = Task(build, lambda path: table(), callbacks=make), Resident(table())
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={}, pinned="fused", trial_epochs=EPOCHS)
    programs = Programs(task, resident, first, lambda program, batch_size: None, epochs=EPOCHS)
    for trial in (0, 1):
        programs.begin(asked_for(trial), print)
        losses = train(programs, trial)
        assert float(made["factor"]) == 0.5 ** (EPOCHS - 1)
        assert losses[-1] < 0.1


KEPT = [keras.callbacks.EarlyStopping()]

REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "no callback": (lambda: ["early"], "returned a list with str: return a list of keras.callbacks.Callback"),
    "one that loads weights": (lambda: keras.callbacks.BackupAndRestore("x"), "BackupAndRestore, which would begin"),
    "the same each time": (lambda: KEPT, "the same EarlyStopping twice"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_study_cannot_call_is_refused_in_one_line(kind: str) -> None:
    make, said = REFUSED[kind]
    with pytest.raises(ModelError) as refusal:
        programs_of(make)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_callbacks_themselves_are_refused_where_a_function_is_wanted() -> None:
    with pytest.raises(InvalidInput, match="give a function that returns new ones for each trial"):
        Task(build_model, lambda path: table(), callbacks=[keras.callbacks.EarlyStopping()])  # type: ignore[arg-type]


def test_the_engine_follows_what_is_called_around_batches_and_says_so() -> None:
    def batches(name: str) -> TrialCallbacks:
        return TrialCallbacks(keras.callbacks.LambdaCallback(**{name: lambda *told: None}))

    around, epochs = batches("on_train_batch_end"), batches("on_epoch_end")
    assert "LambdaCallback is called around batches" in engine_of_callbacks(around, None)[0]
    assert engine_of_callbacks(around, "fit") == engine_of_callbacks(epochs, "fused") == []
    assert engine_of_callbacks(None, "fused") == []
    with pytest.raises(InvalidInput, match=r"--engine fused runs an epoch as one program.*Use --engine fit"):
        engine_of_callbacks(around, "fused")


def test_a_checkpoint_holds_no_pickle() -> None:
    programs = programs_of(KINDS["both"])
    programs.begin(asked_for(0), print)
    train(programs, 0, until=1)
    assert programs.callbacks is not None
    kept = programs.callbacks.carried(0)
    assert kept is not None
    assert isinstance(json.loads(kept[0].tobytes()), list)


def test_what_lies_in_a_database_chooses_no_file_to_write_to() -> None:
    """A checkpoint whose state of a ModelCheckpoint names another path is not gone on from."""
    callback = keras.callbacks.ModelCheckpoint("mine.weights.h5", save_weights_only=True, save_best_only=True)
    kept = carried([callback], 1 << 20)
    assert kept is not None
    assert carry_on([keras.callbacks.ModelCheckpoint("mine.weights.h5", save_weights_only=True)], kept)
    changed = kept[0].tobytes().replace(b"mine.weights.h5", b"/etc/passwd.h5x")
    fresh = keras.callbacks.ModelCheckpoint("mine.weights.h5", save_weights_only=True)
    assert not carry_on([fresh], [np.frombuffer(changed, np.uint8), *kept[1:]])
    assert fresh.filepath == "mine.weights.h5"


class Writing(keras.callbacks.Callback):
    """Of a user's, whose files are in lists and dictionaries."""

    def __init__(self, paths: Any) -> None:
        super().__init__()
        self.paths = paths
        self.best = {"losses": [1.0]}


@pytest.mark.parametrize(
    ("paths", "changed"),
    [
        ({"best": ["mine.csv"]}, {"best": ["/etc/cron.d/x"]}),
        ({"best": "mine.csv"}, {"best": "mine.csv", "again": "x.h5"}),
        ({"mine.csv": 1}, {"/etc/x": 1}),
        (("mine.csv", 0), ["/etc/x"]),
        ([], [np.array(["/etc/x"])]),
        (None, "/etc/x"),
    ],
)
def test_nor_does_text_in_lists_and_dictionaries(paths: Any, changed: Any) -> None:
    told, other = Writing(paths), Writing(changed)
    told.best = other.best = {"losses": [0.5], "val_loss": [0.25, 0.125]}
    kept, harmful = carried([told], 1 << 20), carried([other], 1 << 20)
    assert kept is not None and harmful is not None
    fresh = Writing(paths)
    assert not carry_on([fresh], harmful)
    assert fresh.paths == paths and fresh.best == {"losses": [1.0]}
    assert carry_on([fresh], kept)
    assert fresh.paths == paths and fresh.best == told.best
