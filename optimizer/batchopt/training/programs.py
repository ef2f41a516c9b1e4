"""Which compiled program trains a trial: one that is there where that is certain to be right, else one of its own."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from batchopt.measured import EngineName
from batchopt.question.task import Task
from batchopt.training.accumulation import check_divides, looks_at_batches
from batchopt.training.callbacks import TrialCallbacks, made
from batchopt.training.checkpoint import Pace, pack, unpack, unpack_callbacks
from batchopt.training.form import form_of
from batchopt.training.messages import Train
from batchopt.training.out_of_memory import ModelTooLarge, is_out_of_memory
from batchopt.training.probe import REFUSALS
from batchopt.training.program import Program, State, build, given_by_name, state_of
from batchopt.training.raised import Untrainable, is_pruned, reason
from batchopt.training.resident import Resident
from batchopt.training.seeds import SEED_OF, Purpose

PROGRAMS_KEPT = 4
"""Compiled programs held at once, where trials differ in more than variables."""

CALLBACKS_KEPT = 32
"""Trials whose callbacks are kept while they are paused: more than a search leaves paused."""

ALONE = "alone"
"""The key of a program that no other trial's model is trained by."""


class Programs:
    """A worker's programs, by the forms of their models.

    Args:
        task, resident: what is trained, on what.
        first: the probe's, whose engine the others use.
        make_room: called with a program and a batch size before that is compiled.
        epochs: of a whole trial.

    Attributes:
        current: the one that trains.
        callbacks: of the trial that it trains; None where the task has none.
    """

    def __init__(
        self,
        task: Task,
        resident: Resident,
        first: Program,
        make_room: Callable[[Program, int], None],
        epochs: int = 1,
    ) -> None:
        self._task, self._resident, self._epochs = task, resident, epochs
        self._make_room = make_room
        self._engine = first.engine.name
        self._by_form: dict[object, Program] = {(first.form.key, first.each_batch): first}
        self._shared = Shared()
        self._rates = Rates()
        self._refused: set[str] = set()
        self._told = False
        self.current = first
        self.callbacks: TrialCallbacks | None = None
        self._trial: tuple[Purpose, int] = ("search", -1)
        self._paused: dict[tuple[Purpose, int], TrialCallbacks] = {}

    def begin(self, request: Train, say: Callable[[str], None]) -> tuple[float, int]:
        """Put a trial on the device, compiled.

        Returns:
            Seconds of compilation, and the epoch from which the trial goes on: the request's, or 0 where its checkpoint
            is none of this model's, which is said.

        Raises:
            Untrainable: `build_model` refuses the configuration.
            ModelTooLarge: memory does not suffice to build the model.
        """
        seed = SEED_OF[request.purpose](request.study_seed, request.trial)
        self._shared.put_back()
        try:
            fresh = build(
                self._task,
                self._resident.data,
                learning_rate=request.learning_rate,
                extra=request.extra,
                seed=seed,
                batch_size=request.batch_size,
                epochs=self._epochs,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise ModelTooLarge(str(error)) from error
            if is_pruned(error):
                raise Untrainable(reason(error)) from error
            raise
        check_divides(fresh.optimizer, [request.batch_size])
        given = given_by_name(self._resident.data, seed=seed, batch_size=request.batch_size, epochs=self._epochs)
        callbacks = made(self._task, request.learning_rate, request.extra, given)
        each_batch = callbacks is not None and bool(callbacks.around_batches)
        key: object = (form_of(fresh).key, each_batch)
        state = state_of(fresh)
        self._shared.meet(fresh, state)
        self._rates.meet(request, key, state, say)
        # Nobody will ask again for one whose form nobody can compare, or whose variables its callbacks may hold. One
        # whose model was compiled anew, or has callbacks' settings, would not train what it did.
        self._by_form = {
            form: kept
            for form, kept in self._by_form.items()
            if form != ALONE and not kept.form.doubt and kept.model is not fresh and kept.untouched
        }
        if callbacks is not None and callbacks.holds_variables:
            key = ALONE
        if key not in self._by_form:
            while len(self._by_form) >= PROGRAMS_KEPT:
                del self._by_form[next(iter(self._by_form))]
            engine: EngineName = "fit" if each_batch else self._engine
            self._by_form[key] = Program(self._task, self._resident, engine, fresh, each_batch=each_batch)
        # Before anything is compiled: it may be as large as the model that is trained.
        del fresh
        self.current = self._by_form[key]
        self._make_room(self.current, request.batch_size)
        micro = None if request.micro_batch_size is None else self.current.batch_of(request.micro_batch_size)
        self.current.engine.micro_batch_size = micro
        at_once = request.micro_batch_size or request.batch_size
        if at_once < request.batch_size and not self._told and looks_at_batches(self.current.model):
            self._told = True
            say(
                f"batches of more than {at_once} are trained as micro-batches: gradients are of the whole batch, but "
                "batch normalization normalizes by each micro-batch"
            )
        try:
            compile_seconds = self.current.prepare(request.batch_size)
        except REFUSALS as refusal:
            # Another value of an extra dimension may make a model that XLA cannot compile.
            if self.current.engine.name != "fused-xla" or is_out_of_memory(refusal):
                raise
            # Once is enough, and known by how it begins: what it names is called otherwise each time.
            known = " ".join(reason(refusal).split()[:5])
            if known not in self._refused:
                self._refused.add(known)
                say(f"XLA refuses this model: {reason(refusal)}; it is trained by engine fused")
            self.current = self._by_form[key] = Program(self._task, self._resident, "fused", self.current.model)
            self.current.engine.micro_batch_size = micro
            compile_seconds = self.current.prepare(request.batch_size)
        self.current.load(state)
        what = "the model" if request.purpose == "model" else f"trial {request.trial}"
        kept = None if request.checkpoint is None else unpack(request.checkpoint)
        if kept is not None and not self.current.fits(kept):
            say(
                f"{what}: its checkpoint does not hold what this version keeps of a trial, as "
                "another version wrote it; it starts over"
            )
            kept = None
        steps = -(-self.current.train_examples // self.current.batch_of(request.batch_size))
        if not self._with_callbacks(request, callbacks, steps, goes_on=kept is not None) and kept is not None:
            assert callbacks is not None
            say(
                f"{what}: what its callbacks ({callbacks.names}) have come to cannot be carried to another process, as "
                "it is more than plain values; it starts over"
            )
            kept = None
        if kept is None:
            return compile_seconds, 0
        self.current.load(kept)
        return compile_seconds, request.from_epoch

    def packed(self, pace: Pace | None = None) -> bytes:
        """The trial's state after its last epoch; as it should be kept where a `pace` measures what that takes."""
        started, state = time.perf_counter(), self.current.state()
        callbacks = None
        if self.callbacks is not None:
            callbacks = self.callbacks.carried(sum(array.nbytes for array in state))
        return pack(state, callbacks) if pace is None else pace.packed(state, started, callbacks)

    def finish(self) -> None:
        """The trial is over."""
        self.current.finish(self.callbacks)
        self.callbacks = None

    def _with_callbacks(self, request: Train, made: TrialCallbacks | None, steps: int, *, goes_on: bool) -> bool:
        """Have the model's callbacks in place, its weights being its first; returns whether they can go on with it.

        Args:
            request: whose trial it is.
            made: for it.
            steps: of an epoch.
            goes_on: whether the trial is to go on, and not to begin.
        """
        if self.callbacks is not None and self._trial[0] == "search":
            self._paused = {**self._paused, self._trial: self.callbacks}
            while len(self._paused) > CALLBACKS_KEPT:
                del self._paused[next(iter(self._paused))]
        self._trial, self.callbacks = (request.purpose, request.trial), made
        paused, model = self._paused.pop(self._trial, None), self.current.model
        if made is None:
            return True
        if goes_on and paused is not None and paused.epoch == request.from_epoch and not paused.holds_variables:
            paused.go_on(model)
            self.callbacks = paused
            return True
        made.begin(model, epochs=self._epochs, steps=steps)
        # None where they could not be carried.
        kept = unpack_callbacks(request.checkpoint) if goes_on and request.checkpoint is not None else []
        return bool(kept) and made.carry_on(kept, request.from_epoch)


class Rates:
    """Whether models differ where their learning rates do; said once where they do not."""

    def __init__(self) -> None:
        self._met: dict[object, tuple[float, list[float]]] = {}
        self._said = False

    def meet(self, request: Train, key: object, state: State, say: Callable[[str], None]) -> None:
        """Compare a model that was just built with one that is equal to it in all but variables.

        A rate is one of their single numbers, as counters are; where it is a constant of a schedule, the forms differ.
        """
        numbers = [float(value) for value in state if value.shape == () and value.dtype.kind in "fiu"]
        rate, before = self._met.setdefault(key, (request.learning_rate, numbers))
        if not self._said and rate != request.learning_rate and numbers == before:
            self._said = True
            say(
                f"build_model makes the same optimizer for learning rates {rate:.3g} and {request.learning_rate:.3g}: "
                "what is found of learning rates means nothing. Use its argument learning_rate."
            )


class Shared:
    """Variables that outlive a trial's model, such as those of a module's own layers: back to what they were, for each.

    They are met in a second model; what they were is known from the first, before anything was trained.
    """

    def __init__(self) -> None:
        self._met: dict[int, tuple[weakref.ref[Any], npt.NDArray[Any]]] = {}

    def meet(self, model: Any, state: State) -> None:
        """Look at a model that was just built, and its state."""
        slots = {id(variable.value.handle) for variable in model.optimizer.variables}
        self._met = {key: met for key, met in self._met.items() if met[0]() is not None}
        for variable, value in zip(form_of(model).variables, state, strict=True):
            if id(variable.handle) not in slots and self._of(variable) is None:
                self._met[id(variable)] = weakref.ref(variable), value

    def put_back(self) -> None:
        """Before a model is built: set what is there already to what it was when it was first met."""
        for known, value in self._met.values():
            variable = known()
            if variable is not None:
                variable.assign(value)

    def _of(self, variable: Any) -> npt.NDArray[Any] | None:
        known, value = self._met.get(id(variable), (None, None))
        return value if known is not None and known() is variable else None
