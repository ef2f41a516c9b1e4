"""The probe as the study's process drives it: which batch sizes fit, really tried, and what their steps take.

The worker may die of it: it is replaced, and what it died of is known. What is to be said about memory comes from the
compiler where it tells, else from a climb from small batch sizes upwards, each step of which the last ones predict.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from batchopt.errors import DeviceError, WorkerDied
from batchopt.events import Listener, Noted, Probing
from batchopt.machine.capacity import Capacity
from batchopt.machine.memory import largest_fitting, shown_bytes
from batchopt.measured import StepTime
from batchopt.signals import Interruption
from batchopt.training.messages import (
    Answer,
    Failed,
    Measure,
    Measured,
    PredictedMemory,
    PredictMemory,
    Ready,
    Remark,
    Setup,
    StepTimes,
)
from batchopt.workers.client import Worker
from batchopt.workers.process import Died
from batchopt.workers.slot import DEATHS_ALLOWED, Slot, as_error

TIMED_SIZES = 6
"""Over three decades of batch sizes, so that none lies more than a factor of four from a timed one."""

FIRST_SIZES = 3
"""The least ones, one after the other: enough for a law of memory that may bend."""

TIMING_SECONDS = 6.0

ROOM_SECONDS = 5.0
"""A cluster that has room starts a worker in less."""


class OutOfMemory(Exception):
    """A batch size was tried, and did not fit."""


class DiedMeasuring(Exception):
    """A worker died for a reason that nothing shows: another one may do what it was asked.

    Attributes:
        death: how.
    """

    def __init__(self, death: Died) -> None:
        super().__init__(str(death))
        self.death = death


class TooSmall(Exception):
    """Not even the least batch size fits."""


def probe(
    slot: Slot, capacity: Capacity, *, timed: bool, train_examples: int, listener: Listener, interruption: Interruption
) -> None:
    """Find what fits and what it costs; what `capacity` knows already is not measured again.

    Args:
        slot: with a worker that is ready; another one may have its place afterwards.
        capacity: filled.
        timed: whether steps are to be timed.
        train_examples: of an epoch.
        listener: told how far it is.
        interruption: looked at while a worker is waited for.

    Raises:
        TooSmall: the least batch size does not fit.
        Interrupted: by a signal.
        BatchoptError: the worker met something the user can mend, or the user's own code raised.
    """
    _Probe(slot, capacity, listener, interruption).run(timed=timed, train_examples=train_examples)


def started(setup: Setup, interruption: Interruption, listener: Listener) -> tuple[Worker, Ready]:
    """A worker that is ready, and what it says of itself.

    Raises:
        OutOfMemory: there is not enough to set up.
        BatchoptError: something the user can mend, or worker after worker dies.
    """
    deaths = 0
    while True:
        with ExitStack() as unless_ready:
            worker = unless_ready.enter_context(Worker(setup))
            try:
                answer = _receive(worker, interruption, listener)
            except DiedMeasuring as death:
                deaths += 1
                _tell_of(death, deaths, listener)
                continue
            assert isinstance(answer, Ready)
            unless_ready.pop_all()
            return worker, answer


def spread(sizes: Sequence[int], count: int) -> list[int]:
    """At most `count` of the sizes, evenly over their order, both ends included."""
    chosen = np.linspace(0, len(sizes) - 1, min(count, len(sizes))).round().astype(int)
    return [sizes[index] for index in np.unique(chosen)]


def least_limit(setup: Setup, batch_size: int, interruption: Interruption) -> int:
    """Bytes that a batch size needs at the least: its data on the host, measured by a worker without a limit.

    Raises:
        DeviceError: it does not even fit without a limit.
    """
    capacity = Capacity([batch_size], None)
    setup = dataclasses.replace(setup, memory_limit=None, hold_data=False, engine="fit")
    try:
        with Slot(*started(setup, interruption, _silent)) as slot:
            _Probe(slot, capacity, _silent, interruption).measure((batch_size,), 0.0)
    except OutOfMemory:
        raise DeviceError(f"batch size {batch_size}, the least of the space, does not fit in memory.") from None
    need = capacity.needed(batch_size)
    assert need is not None
    return need


class _Probe:
    def __init__(self, slot: Slot, capacity: Capacity, listener: Listener, interruption: Interruption) -> None:
        self._slot = slot
        self._capacity = capacity
        self._listener = listener
        self._interruption = interruption

    def run(self, *, timed: bool, train_examples: int) -> None:
        capacity, sizes = self._capacity, self._capacity.sizes
        self._foresee()
        if not capacity.fits(sizes[0]):
            raise TooSmall
        chosen = spread(sizes, TIMED_SIZES)
        foreseen = any(row.step_bytes is not None for row in capacity.rows)
        first = [] if foreseen else sizes[:FIRST_SIZES]
        tried = sorted({*chosen, *first})
        for number, size in enumerate(tried):
            if size > capacity.verified and capacity.fits(size):
                self._listener(Probing(size, number, len(tried)))
                self._try(size)
        self._climb()
        if not capacity.verified:
            raise TooSmall
        if timed and not capacity.step_rows:
            fitting = spread([size for size in sizes if size <= capacity.verified], TIMED_SIZES)
            # What is compiled already is timed first of all.
            compiled = {row.batch_size for row in capacity.rows if row.fits}
            if len(compiled) >= len(fitting):
                fitting = spread(sorted(compiled), TIMED_SIZES)
            self._listener(Probing(None, len(chosen), len(chosen)))
            while fitting and not capacity.step_rows:
                try:
                    capacity.record_step_times(self.measure(tuple(fitting), TIMING_SECONDS), train_examples)
                except OutOfMemory:
                    # Each of them fits by itself; what all their programs hold together need not.
                    fitting.pop()
                    self._replace()

    def _foresee(self) -> None:
        """Ask the compiler about the largest size; where that does not fit, about those that bisection asks for."""
        capacity, sizes = self._capacity, self._capacity.sizes
        if any(row.step_bytes is not None for row in capacity.rows):
            return

        def fits(size: int) -> bool:
            self._listener(Probing(size, 0, TIMED_SIZES))
            for answer in self._ask(PredictMemory((size,))):
                if isinstance(answer, PredictedMemory) and size in answer.step_bytes:
                    capacity.record_prediction(size, answer.step_bytes[size])
            return capacity.fits(size)

        assert self._slot.ready is not None
        if self._slot.ready.engine == "fused-xla" and not fits(sizes[-1]):
            largest_fitting(sizes[:-1], fits)

    def _climb(self) -> None:
        """Verify the largest size that should fit; where the law was wrong, bisect."""
        capacity = self._capacity
        while True:
            above = [size for size in capacity.sizes if size > capacity.verified]
            if capacity.failed is not None:
                above = [size for size in above if size < capacity.failed]
                candidate = above[len(above) // 2] if above else None
            else:
                candidate = largest_fitting(above, capacity.fits)
                if candidate is None and above:
                    candidate = self._between(above[0])
            if candidate is None:
                return
            self._listener(Probing(candidate, TIMED_SIZES - 1, TIMED_SIZES))
            self._try(candidate)

    def _between(self, size: int) -> int | None:
        """What to try before a size counts as too large by a law of few sizes; None where nothing would tell more.

        One size alone does not tell what a step needs whatever the batch, as its gradients do, from what examples need.
        """
        capacity = self._capacity
        known = [row.batch_size for row in capacity.rows if row.step_bytes is not None]
        if size in known or len(known) >= FIRST_SIZES:
            return None
        return largest_fitting(range(capacity.verified + 1, size), capacity.fits)

    def _try(self, size: int) -> None:
        """Train and evaluate at a batch size in a worker that may die of it."""
        try:
            self.measure((size,), 0.0)
        except OutOfMemory:
            self._capacity.record_failure(size)
            self._listener(Noted(f"batch size {size} does not fit in memory; found out by the probe"))
            self._replace()

    def measure(self, sizes: tuple[int, ...], seconds: float) -> list[StepTime]:
        """Train and evaluate at batch sizes, and time their steps for so many seconds; raises OutOfMemory."""
        rows: list[StepTime] = []
        for answer in self._ask(Measure(sizes, seconds)):
            if isinstance(answer, Measured):
                self._capacity.record_measurement(answer.batch_size, answer.step_bytes, answer.memory)
            elif isinstance(answer, StepTimes):
                rows += answer.rows
        return rows

    def _ask(self, request: PredictMemory | Measure) -> Iterator[Answer]:
        """What a worker answers, up to its last answer; another one is asked anew where it died."""
        deaths = 0
        while True:
            self._slot.worker.send(request)
            try:
                yield from self._answers()
                return
            except DiedMeasuring as death:
                if isinstance(request, Measure) and self._blames(request.batch_sizes[-1], death):
                    raise OutOfMemory(str(death)) from None
                deaths += 1
                _tell_of(death, deaths, self._listener)
                self._replace()

    def _blames(self, size: int, death: DiedMeasuring) -> bool:
        return death.death.killed and self._capacity.nearly_all(size)

    def _answers(self) -> Iterator[Answer]:
        while True:
            answer = _receive(self._slot.worker, self._interruption, self._listener)
            yield answer
            if not isinstance(answer, Measured):
                return

    def _replace(self) -> None:
        slot = self._slot
        assert slot.ready is not None
        slot.worker.kill()
        setup = dataclasses.replace(slot.worker.setup, engine=slot.ready.engine)
        slot.worker, ready = started(setup, self._interruption, self._listener)
        # What timed the engines is gone; what it found is not.
        slot.ready = dataclasses.replace(ready, timings=slot.ready.timings)


def _tell_of(death: DiedMeasuring, deaths: int, listener: Listener) -> None:
    if deaths >= DEATHS_ALLOWED:
        raise WorkerDied(str(death))
    listener(Noted(f"{death.death.how} while the machine was measured; another one takes its place"))


def _receive(worker: Worker, interruption: Interruption, listener: Listener) -> Answer:
    room = Room(listener)
    while True:
        while not worker.connection.poll(0.1):
            interruption.check()
            room.waited_for([worker])
        try:
            answer = worker.receive()
        except Died as death:
            # Under a limit, what ends a process from within is taken for the limit; a signal 9 comes from outside.
            if death.out_of_memory or (worker.setup.memory_limit is not None and not death.killed):
                raise OutOfMemory(str(death)) from None
            raise DiedMeasuring(death) from None
        if isinstance(answer, Remark):
            listener(Noted(answer.text))
        elif isinstance(answer, Failed):
            if answer.kind == "memory":
                raise OutOfMemory(answer.message)
            raise as_error(answer)
        else:
            return answer


class Room:
    """Says it, once, where a cluster has had no room for workers for some seconds."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._since: float | None = time.monotonic()

    def waited_for(self, workers: Sequence[Worker]) -> None:
        """These workers are waited for, or are at work."""
        share = workers[0].setup.cluster
        if share is None or any(worker.node for worker in workers):
            self._since = time.monotonic()
        elif self._since is not None and time.monotonic() - self._since > ROOM_SECONDS:
            self._since = None
            each = f"{share.cpus:g} CPUs" + (f" and {share.gpus:g} GPUs" if share.gpus else "")
            self._listener(Noted(f"waiting for the cluster: it has no room yet for a worker, which needs {each}"))


def _silent(event: object) -> None:
    pass


def too_small(limit: int | None, batch_size: int, need: int) -> DeviceError:
    """The one line for a limit, or a machine, that holds not even the least batch size."""
    asked = "this machine" if limit is None else f"--memory-limit {shown_bytes(limit)}"
    enough = f"{-(-need // (1 << 20))}MiB"
    what = "use a larger machine" if limit is None else f"give --memory-limit {enough} or more"
    return DeviceError(f"{asked}: batch size {batch_size}, the least of the space, needs {enough}; {what}.")
