"""The form of a model: all that its steps compute beside the values of variables, and which variables these are.

A compiled program may train another trial's model only where the forms of both are equal for certain. A model that is
made of Keras' own classes and functions is what its objects hold, which is quickly read. Of any other one, whose code
may use whatever it likes, the steps are traced and compared as graphs (`graph.py`). What cannot be compared has no form
that another model shares, and its trial gets a program of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchopt.training.figures import flat
from batchopt.training.graph import Comparison
from batchopt.training.out_of_memory import is_out_of_memory

Names = tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """What a model is.

    Attributes:
        digest: of all that its steps compute; empty where that was not looked at.
        doubt: why no other model can be told to have the same form, in a few words; empty where that is certain.
        variables: what training reads and writes, in an order that is the same for a model built twice: weights, slots
            and counters, loss scales and seed generators, then whatever else the steps use, metrics among it.
        outside: those of `variables` that the model does not hold, such as a module's own.
        logs: what `train_step` and `test_step` return where that is not the model's metrics; None where it is.
    """

    digest: str
    doubt: str
    variables: tuple[Any, ...]
    outside: tuple[Any, ...] = ()
    logs: tuple[Names | None, Names | None] = (None, None)

    @property
    def key(self) -> object:
        """Equal for models that one compiled program can train."""
        # Variables from outside are the same objects for both or nothing: nobody knows which the next trace would find.
        return object() if self.doubt else (self.digest, tuple(map(id, self.outside)))


_forms: weakref.WeakKeyDictionary[Any, Form] = weakref.WeakKeyDictionary()


def form_of(model: Any) -> Form:
    """The form of a model that `look` has looked at; of any other one, as much as is seen from without."""
    return _forms.get(model) or Form("", "it was not looked at", _own_variables(model))


def look(model: Any, batch: Any, spec: Any) -> Form:
    """Make what Keras makes lazily (weights of unbuilt models, metrics, slots), and find the model's form.

    No variable has another value afterwards than `fit` would begin with.

    Args:
        model: compiled.
        batch: one or a few examples, as the steps take them.
        spec: of such batches, whatever their size.
    """
    if model.run_eagerly:
        _step_eagerly(model, batch)
        form = Form("", "it runs eagerly", _reachable(model))
    elif type(model).train_step is keras.Model.train_step and (content := _content(model, batch)) is not None:
        _step_eagerly(model, batch)
        form = Form(content, "", _own_variables(model))
    else:
        form = _traced(model, batch, spec)
    _forms[model] = form
    return form


def reachable(model: Any, known: tuple[Any, ...]) -> tuple[Any, ...]:
    """`known`, and after them the variables that a model has come to hold since."""
    have = {id(variable.handle) for variable in known}
    return (*known, *(variable for variable in _reachable(model) if id(variable.handle) not in have))


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Put every variable back afterwards, whatever the model is asked meanwhile."""
    before = [(variable, variable.numpy()) for variable in form_of(model).variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _own_variables(model: Any) -> tuple[Any, ...]:
    return tuple(variable.value for variable in [*model.variables, *model.optimizer.variables])


NOT_HELD = (type, types.ModuleType, types.FunctionType)


def _tensorflows(item: Any) -> bool:
    return type(item).__module__.startswith("tensorflow.")


def _reachable(model: Any) -> tuple[Any, ...]:
    """What hangs on a model by attributes, lists and dictionaries, its own variables first."""
    found = list(_own_variables(model))
    # A stack, from which what was put last is taken first.
    seen, waiting = set(), [model]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, tf.Variable | keras.Variable):
            found.append(item.value if isinstance(item, keras.Variable) else item)
        elif isinstance(item, dict | list | tuple | set):
            waiting += reversed(list(item.values() if isinstance(item, dict) else item))
        elif hasattr(item, "__dict__") and not isinstance(item, NOT_HELD) and not _tensorflows(item):
            waiting += reversed(list(vars(item).values()))
    return tuple({id(variable.handle): variable for variable in found}.values())


def _step_eagerly(model: Any, batch: Any) -> None:
    """One step of evaluation; what it changes is put back."""
    # Made before it, so that it can be put back. What cannot be made without values is made by the step.
    _build(model, batch)
    trained = {id(variable.value.handle) for variable in model.trainable_variables}
    before = [(item, item.numpy()) for item in _reachable(model) if id(item.handle) not in trained]
    model.test_step(batch)
    for variable, value in before:
        variable.assign(value)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def _build(model: Any, batch: Any) -> None:
    if not model.built:
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
        with contextlib.suppress(NotImplementedError, TypeError, ValueError, AttributeError, tf.errors.OpError):
            model(tf.nest.map_structure(lambda item: keras.KerasTensor((None, *item.shape[1:]), item.dtype.name), x))


def _traced(model: Any, batch: Any, spec: Any) -> Form:
    def train(data: Any) -> Any:
        model.reset_metrics()
        return model.train_step(data), model.get_metrics_result()

    def test(data: Any) -> Any:
        model.reset_metrics()
        return model.test_step(data), model.get_metrics_result()

    try:
        # As `fit` does, which leaves the user's code as it is.
        steps = [tf.function(step, autograph=False).get_concrete_function(spec) for step in (train, test)]
    except (tf.errors.OpError, NotImplementedError, TypeError, ValueError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        # It may compile for batches of a known size all the same.
        _step_eagerly(model, batch)
        return Form("", f"it does not compile for batches of any size: {type(error).__name__}", _reachable(model))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = {id(variable.handle): variable for variable in _own_variables(model)}
    for step in steps:
        used = {id(variable.handle): variable for variable in step.graph.variables}
        # In the order in which the graph takes them in; that of its `variables` is not fixed.
        variables |= {id(taken): used[id(taken)] for taken, _ in step.graph.captures if id(taken) in used}
    held = {id(variable.handle) for variable in _reachable(model)}
    comparison = Comparison(tuple(variables.values()))
    digests = [comparison.digest(step) for step in steps]
    logs = [_logs(*step.structured_outputs) for step in steps]
    return Form(
        digest=hashlib.sha256(repr(digests).encode()).hexdigest(),
        doubt=comparison.doubt,
        variables=tuple(variables.values()),
        outside=tuple(variable for handle, variable in variables.items() if handle not in held),
        logs=(logs[0], logs[1]),
    )


def _logs(returned: Any, metrics: dict[str, Any]) -> Names | None:
    """As `fit` has it: metrics over the whole epoch where a step returns these, what its last batch said otherwise."""
    if not isinstance(returned, dict) or set(returned) == set(metrics):
        return None
    return tuple(flat(returned))


PLAIN = (bool, int, float, str, type(None))


def settings_of(model: Any) -> list[Any]:
    """What may be set of a model's layers and its optimizer: plain values, and what is trained."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    layers = [layer for layer in model._flatten_layers() if layer is not model]
    plain = [{n: v for n, v in vars(of).items() if n[:1] != "_" and isinstance(v, PLAIN)} for of in (*layers, inner)]
    return [*plain, [layer.trainable for layer in (*layers, model)]]


BOOKKEEPING = {
    *("name", "_name", "_path", "path", "_parent_path", "stored_ids", "seed", "_init_seed", "_initial_seed"),
    *("_nodes", "_trainable_variables_indices", "_call_signature", "_distribution_strategy", "_distribute_strategy"),
    *("_exclude_from_weight_decay_cache", "_inbound_nodes", "_outbound_nodes", "_keras_history"),
    *("_compile_config", "_auto_config"),
}
"""Attributes of Keras' objects that compute nothing: names and places, which are numbered as they come; seeds, of which
come values of variables and nothing else; nodes of other models that share a layer; what constructors were given."""


def _content(model: Any, batch: Any) -> str | None:
    """All that a model's objects hold beside the values of variables; None where not all of them are Keras' own."""
    _build(model, batch)
    reader = _Reader()
    try:
        reader.read(model)
    except _NotKerasOwn:
        return None
    config = keras.config
    settings: list[Any] = [config.epsilon(), config.floatx(), config.image_data_format(), config.dtype_policy().name]
    told = [reader.numbers.get(item, item) if isinstance(item, str) else item for item in reader.told]
    # Optimizers tell by names what decays, and whose it is.
    paths = [variable.path.split("/") for variable in model.trainable_variables]
    settings += [[reader.numbers.get(part, part) for part in path] for path in paths]
    return hashlib.sha256(repr((settings, told)).encode()).hexdigest()


class _NotKerasOwn(Exception):
    """An object of a class, or a function, that is not Keras' own."""


class _Reader:
    """Reads an object and all that it holds.

    Attributes:
        told: what was read, in order; an object that was met before by the place of its first time.
        numbers: names that Keras gave by itself and that are therefore numbered as they come, by the place of what is
            named so.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.numbers: dict[str, str] = {}
        self._places: dict[int, int] = {}
        # What lives as long as the reader keeps its id.
        self._met: list[Any] = []

    def read(self, value: Any) -> None:
        if value is None or isinstance(value, str | bytes | int | float | complex | re.Pattern | type(...)):
            self.told.append(value)
            return
        if id(value) in self._places:
            self.told.append(("again", self._places[id(value)]))
            return
        self._places[id(value)] = len(self._met)
        self._met.append(value)
        self.told.append(("a", type(value).__qualname__))
        if isinstance(value, keras.Variable | tf.Variable):
            self.told += [tuple(value.shape), str(value.dtype), value.trainable]
            kept = ("_regularizer", "_constraint", "_overwrite_with_gradient")
            self._attributes({name: getattr(value, name, None) for name in kept})
        elif isinstance(value, np.ndarray | np.generic | tf.Tensor):
            self.told += [str(value.dtype), tuple(value.shape), np.asarray(value).tobytes()]
        elif isinstance(value, tf.DType | np.dtype | tf.TensorShape):
            self.told.append(str(value))
        elif isinstance(value, dict):
            for key, item in value.items():
                self.read(key)
                self.read(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self.read(item)
        elif isinstance(value, set | frozenset) and all(isinstance(item, str) for item in value):
            self.told.append(sorted(value))
        elif isinstance(value, types.ModuleType):
            self.told.append(value.__name__)
        elif isinstance(value, types.MethodType):
            self.read(value.__func__)
            self.read(value.__self__)
        elif inspect.isfunction(value) or inspect.isclass(value):
            self._own(value.__module__)
            self.told.append(f"{value.__module__}.{value.__qualname__}")
            for cell in getattr(value, "__closure__", None) or ():
                self.read(cell.cell_contents)
        else:
            self._own(type(value).__module__)
            name = getattr(value, "name", None)
            if isinstance(name, str) and _numbered(name, type(value).__name__):
                self.numbers[name] = f"name of {self._places[id(value)]}"
            self._attributes(vars(value))

    def _attributes(self, attributes: dict[str, Any]) -> None:
        for name in sorted(attributes):
            if name not in BOOKKEEPING and not name.startswith("_self_"):
                self.told.append(("its", name))
                self.read(attributes[name])

    def _own(self, module: str | None) -> None:
        if (module or "").partition(".")[0] != "keras":
            raise _NotKerasOwn


def _numbered(name: str, class_name: str) -> bool:
    """Whether Keras made a name of a class's: that, in lower case, and a number."""
    plain = re.sub(r"_\d+$", "", name).replace("_", "")
    return plain == class_name.lower()
