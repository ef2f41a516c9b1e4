"""Which compiled program trains a trial: one that is there where that is certain to be right, else one of its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from batchopt.question.task import Task
from batchopt.training.checkpoint import unpack
from batchopt.training.form import form_of
from batchopt.training.messages import Train
from batchopt.training.out_of_memory import ModelTooLarge, is_out_of_memory
from batchopt.training.probe import REFUSALS
from batchopt.training.program import Program, State, build, state_of
from batchopt.training.raised import Untrainable, is_pruned, reason
from batchopt.training.resident import Resident
from batchopt.training.seeds import SEED_OF

PROGRAMS_KEPT = 4
"""Compiled programs held at once, where trials differ in more than variables."""


class Programs:
    """A worker's programs, by the forms of their models.

    Args:
        task, resident: what is trained, on what.
        first: the probe's, whose engine the others use.
        make_room: called with a program and a batch size before that is compiled.
        epochs: of a whole trial.

    Attributes:
        current: the one that trains.
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
        self._by_form: dict[object, Program] = {first.form.key: first}
        self._shared = Shared()
        self._rates = Rates()
        self._refused: set[str] = set()
        self.current = first

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
        key, state = form_of(fresh).key, state_of(fresh)
        self._shared.meet(fresh, state)
        self._rates.meet(request, key, state, say)
        # Nobody will ask again for one whose form nobody can compare.
        self._by_form = {form: kept for form, kept in self._by_form.items() if not kept.form.doubt}
        if key not in self._by_form:
            while len(self._by_form) >= PROGRAMS_KEPT:
                del self._by_form[next(iter(self._by_form))]
            self._by_form[key] = Program(self._task, self._resident, self._engine, fresh)
        # Before anything is compiled: it may be as large as the model that is trained.
        del fresh
        self.current = self._by_form[key]
        self._make_room(self.current, request.batch_size)
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
            compile_seconds = self.current.prepare(request.batch_size)
        from_epoch = 0
        if request.checkpoint is not None:
            kept = unpack(request.checkpoint)
            if self.current.fits(kept):
                state, from_epoch = kept, request.from_epoch
            else:
                what = "the model" if request.purpose == "model" else f"trial {request.trial}"
                say(
                    f"{what}: its checkpoint does not hold what this version keeps of a trial, as "
                    "another version wrote it; it starts over"
                )
        self.current.load(state)
        return compile_seconds, from_epoch


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
