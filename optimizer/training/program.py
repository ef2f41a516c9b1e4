"""A program: one compiled Keras model that is trained again and again from exact starting points.

Compiling is dear and trials are many, so trials of one study share a model and its compiled epochs. What differs
between trials, initial weights, optimizer slots, seed generators and the learning rate, are variables: each trial
builds a fresh model the way the user wrote it, and its values are copied into the compiled one. Where more than
variables differ (another schedule, another extra dimension), the signature differs, and a program of its own is made.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from optimizer.errors import DataError, ModelError
from optimizer.training.data_check import check_with
from optimizer.training.engines import Engine, flat, make_engine
from optimizer.training.messages import EngineName, Epoch
from optimizer.training.metrics import refuse_less_is_better
from optimizer.training.resident import Resident
from optimizer.training.task import Dataset, Task, take

State = list[npt.NDArray[Any]]
"""Every variable of the model and of its optimizer, in their order: weights, slots and counters, loss scales, seed
generators of layers. Not the metrics', which every epoch begins by resetting. Not the seed generator either that Keras
shares among `keras.random` calls without a seed, which is no model's: a resumed trial does not repeat what it gives."""

SEED_BITS = 31


class Program:
    """One model, its engine, and its compiled epochs by batch size."""

    def __init__(self, task: Task, resident: Resident, engine: EngineName, model: Any) -> None:
        self._metric = task.metric
        self.data = resident.data
        self.train_examples = resident.train_count
        self.model = model
        self.engine: Engine = make_engine(engine, model, resident)

    def prepare(self, batch_size: int) -> float:
        """Compile for a batch size; returns seconds. Changes variables: `load` a state afterwards."""
        return self.engine.prepare(batch_size)

    def state(self) -> State:
        """The state that training has reached; `load` goes on from there."""
        return state_of(self.model)

    def load(self, state: State) -> None:
        """Set every variable; the reverse of `state`."""
        for variable, value in zip(_variables(self.model), state, strict=True):
            # NumPy's archives know bfloat16 only as two bytes of void.
            variable.assign(value.view(variable.value.dtype.as_numpy_dtype) if value.dtype.kind == "V" else value)

    def epoch(self, number: int, *, batch_size: int, rng: np.random.Generator) -> Epoch:
        """Train epoch `number` (from 1) in the order that `rng` gives, then evaluate."""
        started = time.perf_counter()
        train = self.engine.train(rng, batch_size)
        trained = time.perf_counter()
        validation = self.engine.evaluate()
        evaluated = time.perf_counter()
        return Epoch(
            epoch=number,
            train_loss=train["loss"],
            train_accuracy=train[self._metric],
            validation_loss=validation["loss"],
            validation_accuracy=validation[self._metric],
            train_seconds=trained - started,
            evaluation_seconds=evaluated - trained,
            steps=-(-self.train_examples // batch_size),
            examples_per_second=self.train_examples / (trained - started),
        )


def use_deterministic_ops() -> None:
    """Have TensorFlow give equal results for equal inputs on equal hardware; before its first use."""
    tf.config.experimental.enable_op_determinism()
    # Random ops refuse to run without a seed then; each trial sets its own.
    keras.utils.set_random_seed(0)


def build(task: Task, data: Dataset, *, learning_rate: float, extra: Mapping[str, Any], seed: int) -> Any:
    """The user's model, compiled, with every variable made; initial values derive from `seed` alone.

    Raises:
        ModelError: what `build_model` returned cannot be trained, or does not have the task's metric, or less of that
            is better.
        DataError: the model refuses the data for what is wrong with that.
    """
    keras.utils.set_random_seed(seed)
    model = task.build_model(learning_rate, **extra)
    if not isinstance(model, keras.Model):
        raise ModelError(f"build_model returned {type(model).__name__}, not a keras.Model; return the compiled model.")
    if not model.compiled or model.optimizer is None:
        raise ModelError("build_model returned a model that is not compiled; call model.compile(...) before return.")
    # One eager step makes what Keras makes lazily: weights of unbuilt models, metrics, the loss.
    try:
        model.test_step(_sample(data))
    except Exception as error:
        # Where it is the data that does not fit, that is what there is to say.
        try:
            check_with(model, data)
        except DataError:
            raise
        except Exception:  # noqa: BLE001  whatever the model raises; what it raised first is the user's to see
            raise error from None
        raise
    model.optimizer.build(model.trainable_variables)
    refuse_less_is_better(model, task.metric)
    names = list(flat(model.get_metrics_result()))
    if task.metric not in names:
        raise ModelError(
            f"the model has no metric {task.metric!r}, only {', '.join(names)}. "
            f"Compile it with metrics=[{task.metric!r}], or name another with Task(metric=...)."
        )
    model.reset_metrics()
    return model


def state_of(model: Any) -> State:
    """A copy of the state of a model from `build`, on the host."""
    return [variable.numpy() for variable in _variables(model)]


def signature(model: Any) -> str:
    """What is compiled into a program: the architecture, loss and optimizer, without the learning rate.

    Names that Keras numbers by itself are replaced by their position, so that a model built twice has one signature.
    A custom model that has no config is known by its class and the shapes of its variables.

    Returns:
        SHA-256 in hexadecimal.
    """
    try:
        architecture = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        architecture = {"class_name": f"{type(model).__module__}.{type(model).__qualname__}"}
    optimizer = keras.saving.serialize_keras_object(model.optimizer)
    _forget_rate(optimizer)
    architecture.pop("compile_config", None)
    compiled = {
        name: repr(value) if callable(value) else value
        for name, value in (model.get_compile_config() or {}).items()
        if name != "optimizer"
    }
    shapes = [(list(v.shape), str(v.dtype)) for v in model.variables]
    content = [architecture, optimizer, compiled, shapes]
    names = {name: f"#{position}" for position, name in enumerate(dict.fromkeys(_names(content)))}
    return hashlib.sha256(json.dumps(_rename(content, names), sort_keys=True, default=str).encode()).hexdigest()


def trial_seed(study_seed: int, trial: int) -> int:
    """The seed of a trial's initial values, from the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([study_seed, trial]).generate_state(1)[0] >> (32 - SEED_BITS))


def epoch_rng(study_seed: int, trial: int, epoch: int) -> np.random.Generator:
    """The generator of an epoch's order of samples, from (study seed, trial, epoch) alone."""
    return np.random.default_rng([study_seed, trial, epoch])


def _variables(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _sample(data: Dataset) -> Any:
    if data.streamed:
        return next(iter(data.train.batch(1)))
    sample = tuple(item for item in take(data.train, np.arange(1)) if item is not None)
    return tf.nest.map_structure(tf.constant, sample)


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
