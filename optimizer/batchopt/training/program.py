"""A program: one compiled Keras model that is trained again and again from exact starting points.

Compiling is dear and trials are many, so trials of one study share a model and its compiled epochs. What differs
between trials, initial weights, optimizer slots, seed generators and the learning rate, are variables: each trial
builds a fresh model the way the user wrote it, and its values are copied into the compiled one. Where more than that
differs, or may (another schedule, another extra dimension), the form (`form.py`) is another, with its own program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from batchopt.errors import DataError, ModelError
from batchopt.machine.energy import EnergyMeter
from batchopt.measured import EngineName, Epoch
from batchopt.question.task import Dataset, Task, take
from batchopt.training.accumulation import accumulated_batches
from batchopt.training.callbacks import TrialCallbacks, described
from batchopt.training.data_check import SEARCHED, check_with
from batchopt.training.engines import Engine, make_engine
from batchopt.training.figures import Figures, flat, loss_of
from batchopt.training.form import Form, form_of, look, reachable, settings_of
from batchopt.training.made import first_batch
from batchopt.training.metrics import direction_of
from batchopt.training.names import named_anew
from batchopt.training.resident import Resident, train_count

State = list[npt.NDArray[Any]]
"""Every variable that training reads or writes, in the order of the model's form."""


class Program:
    """One model, its engine, and its compiled epochs by batch size.

    Args:
        task, resident, engine, model: what is trained, on what, and how.
        each_batch: whether callbacks are called around batches.
        callbacks: as the task makes them, of no trial; to be looked at.
    """

    def __init__(
        self,
        task: Task,
        resident: Resident,
        engine: EngineName,
        model: Any,
        *,
        each_batch: bool = False,
        callbacks: TrialCallbacks | None = None,
    ) -> None:
        self._metric = task.metric
        self.data = resident.data
        self.train_examples = resident.train_count
        self.model = model
        self.form: Form = form_of(model)
        self.variables = self.form.variables
        self.engine: Engine = make_engine(engine, model, resident, each_batch=each_batch)
        self.each_batch = each_batch
        self.callbacks = callbacks
        self._finished = False
        self._made_as = settings_of(model)

    @property
    def untouched(self) -> bool:
        """Whether the model is as it was made, beside variables; what callbacks set would be in the next trace."""
        return settings_of(self.model) == self._made_as

    def prepare(self, batch_size: int) -> float:
        """Compile for a batch size; returns seconds. Changes variables: `load` a state afterwards."""
        return self.engine.prepare(self.batch_of(batch_size))

    def batch_of(self, batch_size: int) -> int:
        """Examples of each batch that the engine takes; an optimizer that accumulates makes one step of several."""
        return max(1, batch_size // accumulated_batches(self.model.optimizer))

    def train_steps(self, rng: np.random.Generator, batch_size: int, steps: int) -> float:
        """Train so many whole steps, and the partial batch that an epoch ends with; returns seconds."""
        batch = self.batch_of(batch_size)
        started = time.perf_counter()
        self.engine.train(rng, batch, steps=steps * (batch_size // batch))
        return time.perf_counter() - started

    def state(self) -> State:
        """The state that training has reached; `load` goes on from there."""
        if self.model.run_eagerly:
            # Nobody traced its steps, so it holds what they make only once they ran.
            self.variables = reachable(self.model, self.variables)
        return [variable.numpy() for variable in self.variables]

    def load(self, state: State) -> None:
        """Set every variable; the reverse of `state`."""
        self._finished = False
        for variable, value in zip(self.variables, state, strict=not self.model.run_eagerly):
            variable.assign(_as_stored(value, variable))

    def fits(self, state: State) -> bool:
        """Whether `load` can take a state: it may be of another version of this package, or of Keras."""
        return len(state) == len(self.variables) and all(
            value.shape == tuple(variable.shape) and _as_stored(value, variable).dtype == variable.dtype.as_numpy_dtype
            for value, variable in zip(state, self.variables, strict=True)
        )

    def epoch(
        self,
        number: int,
        *,
        batch_size: int,
        rng: np.random.Generator,
        callbacks: TrialCallbacks | None = None,
        meter: EnergyMeter | None = None,
    ) -> Epoch:
        """Train epoch `number` (from 1) in the order that `rng` gives, then evaluate.

        What callbacks do around epochs is neither training nor evaluation, and on no clock. Energy is that of training.
        """
        batch = self.batch_of(batch_size)
        if callbacks is not None:
            callbacks.epoch_begins(number)
        around_batches = () if callbacks is None else callbacks.for_fit()
        before = None if meter is None else meter.joules()
        started = time.perf_counter()
        train = self.engine.train(rng, batch, callbacks=around_batches)
        trained = time.perf_counter()
        after = None if meter is None else meter.joules()
        with contextlib.nullcontext() if callbacks is None else callbacks.evaluation() as told:
            began = time.perf_counter()
            raw = self.engine.evaluate(around_batches)
            if told is not None:
                told |= raw
        validation = self._of_averages() if averages(self.model.optimizer) else raw
        evaluated = time.perf_counter()
        if callbacks is not None:
            # As `fit` validates in the middle of training, with the weights as they are.
            callbacks.epoch_ends(number, train | {f"val_{name}": value for name, value in raw.items()})
        return Epoch(
            epoch=number,
            train_loss=loss_of(train),
            train_value=train[self._metric],
            validation_loss=loss_of(validation),
            value=validation[self._metric],
            train_seconds=trained - started,
            evaluation_seconds=evaluated - began,
            # Keras goes on where an epoch has ended within a step.
            steps=max(1, -(-self.train_examples // batch) // (batch_size // batch)),
            examples_per_second=self.train_examples / (trained - started),
            joules=None if before is None or after is None else after - before,
            raw_loss=None if validation is raw else loss_of(raw),
            raw_value=None if validation is raw else raw[self._metric],
        )

    def _of_averages(self) -> Figures:
        """The metrics over the validation data of the weights that `fit` would leave behind now."""
        weights = self.model.trainable_variables
        trained_on = [tf.identity(weight.value) for weight in weights]
        self.model.optimizer.finalize_variable_values(weights)
        try:
            return self.engine.evaluate()
        finally:
            for weight, value in zip(weights, trained_on, strict=True):
                weight.assign(value)

    def finish(self, callbacks: TrialCallbacks | None = None) -> None:
        """Do what `fit` does after the last epoch, once: average weights, where they are, and tell callbacks."""
        if not self._finished:
            self._finished = True
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            if callbacks is not None:
                callbacks.end()


def averages(optimizer: Any) -> bool:
    """Whether an optimizer averages weights, which take the place of the weights when training ends."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return bool(getattr(inner, "use_ema", False))


def use_deterministic_ops() -> None:
    """Have TensorFlow give equal results for equal inputs on equal hardware; before its first use."""
    tf.config.experimental.enable_op_determinism()
    # Random ops refuse to run without a seed then; each trial sets its own.
    keras.utils.set_random_seed(0)


def build(
    task: Task,
    data: Dataset,
    *,
    learning_rate: float,
    extra: Mapping[str, Any],
    seed: int,
    batch_size: int = 1,
    epochs: int = 1,
) -> Any:
    """The user's model, compiled, with every variable made; initial values derive from `seed` alone.

    Args:
        task: whose `build_model` it is.
        data: what it is trained on.
        learning_rate, extra: of the configuration.
        seed: of the trial.
        batch_size, epochs: examples per optimizer step and epochs of a whole trial, for a `build_model` that asks.

    Raises:
        ModelError: what `build_model` returned cannot be trained, or does not have the task's metric, or nothing
            tells which way of it is better.
        DataError: the model refuses the data for what is wrong with that.
    """
    given = given_by_name(data, seed=seed, batch_size=batch_size, epochs=epochs)

    def seeded() -> Any:
        keras.utils.set_random_seed(seed)
        return task.built(learning_rate, extra, given)

    model = named_anew(seeded)
    if not isinstance(model, keras.Model):
        raise ModelError(f"build_model returned {type(model).__name__}, not a keras.Model; return the compiled model.")
    if not model.compiled or model.optimizer is None:
        raise ModelError("build_model returned a model that is not compiled; call model.compile(...) before return.")
    try:
        form = look(model, sample(data), _spec(data))
    except Exception as error:
        # Where it is the data that does not fit, that is what there is to say.
        try:
            check_with(model, data, parts=SEARCHED)
        except DataError:
            raise
        except Exception:  # noqa: BLE001  whatever the model raises; what it raised first is the user's to see
            raise error from None
        raise
    names = form.logs[0] or tuple(flat(model.get_metrics_result()))
    if task.metric not in names:
        raise ModelError(
            f"the model has no metric {task.metric!r}, only {', '.join(names)}. "
            f"Compile it with metrics=[{task.metric!r}], or name another with Task(metric=...)."
        )
    direction_of(model, task)
    return model


def given_by_name(data: Dataset, *, seed: int, batch_size: int, epochs: int) -> dict[str, int]:
    """What the task's functions are given where they have arguments of these names; arguments as of `build`."""
    steps = -(-train_count(data) // batch_size)
    return {"batch_size": batch_size, "steps_per_epoch": steps, "epochs": epochs, "trial_seed": seed}


def state_of(model: Any) -> State:
    """A copy of the state of a model from `build`, on the host."""
    return [variable.numpy() for variable in form_of(model).variables]


def made_with(device: str, *, deterministic: bool) -> str:
    """What the form of a model depends on beside the model."""
    versions = f"tensorflow {tf.__version__}, keras {keras.__version__}"
    return f"{versions}, {device}{', deterministic' if deterministic else ''}"


def signature(model: Any, callbacks: TrialCallbacks | None = None) -> str:
    """What a model's config says, architecture, loss and optimizer, without the learning rate.

    It does not say all that the model computes, which is its form, but what it says does not depend on versions. Names
    that Keras numbers by itself are replaced by their position, so that a model built twice has one signature. What has
    no config is known by its class and the shapes of its variables. Callbacks, where there are any, are a part of it.

    Returns:
        SHA-256 in hexadecimal.
    """
    architecture = _config(model, lambda: json.loads(model.to_json()))
    optimizer = _config(model.optimizer, lambda: keras.saving.serialize_keras_object(model.optimizer))
    _forget_rate(optimizer)
    architecture.pop("compile_config", None)
    compiled = {
        name: repr(value) if callable(value) else value
        for name, value in _config(model.loss, lambda: model.get_compile_config() or {}).items()
        if name != "optimizer"
    }
    shapes = [(list(v.shape), str(v.dtype)) for v in model.variables]
    content = [architecture, optimizer, compiled, shapes]
    content += [] if callbacks is None else [described(callbacks)]
    names = {name: f"#{position}" for position, name in enumerate(dict.fromkeys(_names(content)))}
    return hashlib.sha256(json.dumps(_rename(content, names), sort_keys=True, default=str).encode()).hexdigest()


def _as_stored(value: npt.NDArray[Any], variable: Any) -> npt.NDArray[Any]:
    """NumPy's archives know bfloat16 only as two bytes of void."""
    return value.view(variable.dtype.as_numpy_dtype) if value.dtype.kind == "V" else value


def sample(data: Dataset) -> Any:
    """One example, as a batch."""
    if callable(data.train):
        return tf.nest.map_structure(lambda leaf: tf.constant(leaf[:1]), first_batch(data.train))
    if data.streamed:
        return next(iter(data.train.batch(1)))
    sample = tuple(item for item in take(data.train, np.arange(1)) if item is not None)
    return tf.nest.map_structure(tf.constant, sample)


def _spec(data: Dataset) -> Any:
    """Batches of any size."""
    if data.streamed and not callable(data.train):
        return data.train.batch(1).element_spec
    return tf.nest.map_structure(lambda item: tf.TensorSpec((None, *item.shape[1:]), item.dtype), sample(data))


def _names(config: Any) -> list[str]:
    """The names of the Keras objects in a config, in the order of their appearance; a precision is not a name."""
    if isinstance(config, list):
        return [name for item in config for name in _names(item)]
    if not isinstance(config, dict):
        return []
    inner = config.get("config")
    own = []
    if isinstance(inner, dict) and "name" in inner and config.get("class_name") != "DTypePolicy":
        own = [inner["name"]]
    return own + [name for key in sorted(config) for name in _names(config[key])]


def _config(of: Any, config: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return config()
    except (NotImplementedError, TypeError, ValueError):
        return {"class_name": f"{type(of).__module__}.{type(of).__qualname__}"}


def _forget_rate(optimizer: dict[str, Any]) -> None:
    """Take a plain learning rate out of a config: it is a variable. A schedule is compiled in, and stays."""
    config = optimizer.get("config", {})
    if isinstance(config.get("learning_rate"), float | int):
        del config["learning_rate"]
    if isinstance(config.get("inner_optimizer"), dict):
        _forget_rate(config["inner_optimizer"])


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _rename(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_rename(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
