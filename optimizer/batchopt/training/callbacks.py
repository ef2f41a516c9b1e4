"""A trial's callbacks: Keras' own, called as `fit` calls them, whatever trains.

`fit` would call them for all epochs at once; here a trial may be paused between two, and go on in another process. So
the calls around epochs are made here, with the logs that `fit` gives. Those around batches are `fit`'s, which trains
where there are any: a fused epoch is one program, into which nobody can call.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from batchopt.errors import InvalidInput, ModelError
from batchopt.measured import EngineName
from batchopt.question.task import Task
from batchopt.training.carried import Arrays, carried, carry_on
from batchopt.training.surroundings import is_users

AROUND_BATCHES = (
    *("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)


class TrialCallbacks:
    """The callbacks of one trial.

    Args:
        made: what the task's function returned.

    Attributes:
        around_batches: names of those that are called around batches; only `fit` can do so.
        holds_variables: whether they hold variables, which may be those of this very trial's model.
        epoch: after which they are.
        stopped: whether one has set `model.stop_training`.
    """

    def __init__(self, made: Any) -> None:
        self.own = _checked(made)
        self.around_batches = tuple(type(own).__name__ for own in self.own if _around_batches(own))
        self.holds_variables = _holds_variables(self.own)
        self.names = ", ".join(dict.fromkeys(type(own).__name__ for own in self.own))
        self.epoch = 0
        self.stopped = False
        self.all: Any = None
        self.last_logs: dict[str, float] = {}

    def begin(self, model: Any, *, epochs: int, steps: int) -> None:
        """A trial begins; its model has its first weights.

        Args:
            model: that is trained.
            epochs, steps: of a whole trial, and of an epoch, as callbacks find them in `params`.
        """
        self.all = keras.callbacks.CallbackList(
            self.own, add_history=True, model=model, verbose=0, epochs=epochs, steps=steps
        )
        model.stop_training = False
        self.all.on_train_begin()

    def go_on(self, model: Any) -> None:
        """The trial goes on with another model, of the same form and values."""
        self.all.set_model(model)
        model.stop_training = False

    def epoch_begins(self, number: int) -> None:
        """Before epoch `number`, from 1."""
        self.all.on_epoch_begin(number - 1)
        self.stopped = bool(self.all.model.stop_training)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[dict[str, float]]:
        """Around an evaluation, whose figures are to be put into what this gives."""
        self.all.on_test_begin()
        figures: dict[str, float] = {}
        yield figures
        self.all.on_test_end(figures)

    def epoch_ends(self, number: int, logs: Mapping[str, float]) -> None:
        """After its evaluation; the logs are those of `fit`."""
        model = self.all.model
        # Each call of `fit` puts its own there.
        model.history = next(own for own in self.all.callbacks if isinstance(own, keras.callbacks.History))
        self.last_logs = dict(logs)
        self.all.on_epoch_end(number - 1, dict(logs))
        self.stopped = self.stopped or bool(model.stop_training)
        self.epoch = number

    def end(self) -> None:
        """The trial is over."""
        self.all.on_train_end(self.last_logs)

    def for_fit(self) -> list[Any]:
        """What `fit` and `evaluate` are to call around batches."""
        return [_AroundBatches(self.all, stopped=self.stopped)] if self.around_batches else []

    def carried(self, model_bytes: int) -> Arrays | None:
        """Their state as arrays; None where it cannot be carried to another process."""
        return None if self.holds_variables else carried(self.all.callbacks, model_bytes)

    def carry_on(self, kept: Arrays, epoch: int) -> bool:
        """Go on from a state after an epoch; False where it is not one of theirs."""
        self.epoch = epoch
        return carry_on(self.all.callbacks, kept)


class _AroundBatches(keras.callbacks.Callback):  # type: ignore[misc]
    """Passes on what `fit` calls around batches, and nothing else that it calls."""

    def __init__(self, to: Any, *, stopped: bool) -> None:
        super().__init__()
        self._to, self._stopped = to, stopped

    def on_train_begin(self, logs: Any = None) -> None:
        # `fit` has just set it to False.
        self.model.stop_training = self._stopped

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._to.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._to.on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._to.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._to.on_test_batch_end(batch, logs)


def made(task: Task, learning_rate: float, extra: Mapping[str, Any], given: Mapping[str, int]) -> TrialCallbacks | None:
    """A trial's callbacks; None where the task has none. Arguments as of `Task.built`.

    Raises:
        ModelError: what its function returned are no callbacks, or none that a study can have.
    """
    return None if task.callbacks is None else TrialCallbacks(task.made_callbacks(learning_rate, extra, given))


def check_made_anew(first: TrialCallbacks, second: TrialCallbacks) -> None:
    """Refuse a function that returns the same objects each time, which trials would share.

    Raises:
        ModelError: naming one.
    """
    shared = {id(own) for own in first.own} & {id(own) for own in second.own}
    name = next((type(own).__name__ for own in first.own if id(own) in shared), None)
    if name is not None:
        raise ModelError(f"Task(callbacks=...) returned the same {name} twice: make a new one in it each time.")


def engine_of_callbacks(callbacks: TrialCallbacks | None, asked: EngineName | None) -> list[str]:
    """What is to be said of the engine where callbacks have chosen it; `asked` is the user's.

    Raises:
        InvalidInput: the user's cannot call them.
    """
    if callbacks is None or not callbacks.around_batches or asked == "fit":
        return []
    names = ", ".join(callbacks.around_batches)
    if asked is not None:
        raise InvalidInput(
            f"--engine {asked} runs an epoch as one program, and {names} is called around batches. Use --engine fit."
        )
    return [f"{names} is called around batches, which only Keras' own loop can do: trials are trained by engine fit"]


def described(callbacks: TrialCallbacks) -> str:
    """A fingerprint of what callbacks are: their classes, and what those of Keras that steer training are set to."""
    steering = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau)
    told = [
        [f"{type(own).__module__}.{type(own).__qualname__}", vars(own) if type(own) in steering else {}]
        for own in callbacks.own
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _checked(returned: Any) -> list[Any]:
    if isinstance(returned, keras.callbacks.CallbackList):
        returned = returned.callbacks
    found = list(returned) if isinstance(returned, list | tuple) else [returned]
    for own in found:
        if not isinstance(own, keras.callbacks.Callback):
            raise ModelError(
                f"Task(callbacks=...) returned {'a list with ' if own is not returned else ''}{type(own).__name__}: "
                "return a list of keras.callbacks.Callback."
            )
        if isinstance(own, keras.callbacks.BackupAndRestore):
            raise ModelError(
                "Task(callbacks=...) has BackupAndRestore, which would begin each trial with the weights of another. "
                "Leave it out: a study keeps the state of its trials."
            )
    return found


def _around_batches(own: Any) -> bool:
    if type(own) is keras.callbacks.TerminateOnNaN:
        # A trial whose loss is not finite after an epoch is over in any case.
        return False
    if type(own) is keras.callbacks.ModelCheckpoint and own.save_freq == "epoch":
        return False
    default = keras.callbacks.Callback
    return any(name in vars(own) or getattr(type(own), name) is not getattr(default, name) for name in AROUND_BATCHES)


def _holds_variables(callbacks: Sequence[Any]) -> bool:
    """Whether variables, layers, or models are found from callbacks, by all that they and their functions refer to."""
    seen: set[int] = set()
    waiting: list[Any] = list(callbacks)
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, tf.Variable | keras.Variable | keras.Layer | keras.optimizers.Optimizer):
            return True
        if isinstance(item, dict | list | tuple | set):
            waiting += item.values() if isinstance(item, dict) else item
        elif isinstance(item, types.MethodType):
            waiting += [item.__func__, item.__self__]
        elif isinstance(item, types.FunctionType):
            waiting += _referred(item)
        elif isinstance(item, types.ModuleType):
            file = getattr(item, "__file__", None)
            waiting += vars(item).values() if file and is_users(file) else ()
        elif isinstance(item, type):
            own = not item.__module__.startswith(("keras.", "tensorflow.", "numpy")) and item.__module__ != "builtins"
            waiting += [*vars(item).values(), *item.__bases__] if own else ()
        elif hasattr(item, "__dict__"):
            waiting += [*vars(item).values(), type(item)]
    return False


def _referred(function: types.FunctionType) -> list[Any]:
    if function.__module__ and function.__module__.partition(".")[0] in ("keras", "tensorflow", "numpy"):
        return []
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *found]
