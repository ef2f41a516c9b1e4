"""What a machine is worth to a question: what it is, what fits, what steps cost. Nothing is trained to be kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from batchopt.events import Listener, Noted, Starting
from batchopt.machine.capacity import Capacity
from batchopt.question.options import Budget, Options
from batchopt.question.script import Question
from batchopt.question.space import SearchSpace
from batchopt.report.answer.reading import read_stamp
from batchopt.signals import Interruption
from batchopt.store.access import opened
from batchopt.store.address import shown_storage
from batchopt.store.history import open_study
from batchopt.store.measurements import measured_on
from batchopt.store.records import Records
from batchopt.store.stamp import check_program
from batchopt.store.study_facts import StudyLedger
from batchopt.store.transactions import Transactions
from batchopt.training.messages import Ready
from batchopt.workers.starting import first_setup, measured, new_capacity, ready_slot


@dataclass(frozen=True)
class BatchSizeCost:
    """What one batch size costs on a machine.

    Attributes:
        step_time_s, spread_s: measured; None where the law alone tells.
        seconds_per_epoch, examples_per_second: of whole epochs, measured or by the law; None where nothing was timed.
        memory_bytes: of the device, in all, the reserve included; None where it does not tell.
        fits: whether it fits, by trial where it is at or below `max_batch_size`.
    """

    batch_size: int
    step_time_s: float | None
    spread_s: float | None
    seconds_per_epoch: float | None
    examples_per_second: float | None
    memory_bytes: int | None
    fits: bool


@dataclass(frozen=True)
class Inspection:
    """What was found; `describe` is its JSON.

    Attributes:
        ready: what the worker said of machine, program and engine.
        capacity: what fits, and what steps cost.
        probe_seconds: wall time of the probe, engines and all compilation included; the start of TensorFlow and the
            loading of the data left out.
    """

    ready: Ready
    capacity: Capacity
    probe_seconds: float

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        law = self.capacity.steps
        return {
            "machine": self.ready.machine.describe(),
            "program": asdict(self.ready.program) | {"parameters": self.ready.parameters},
            "engine": self.ready.engine,
            "engines": [asdict(timing) for timing in self.ready.timings if not timing.refusal],
            "refused": {timing.engine: timing.refusal for timing in self.ready.timings if timing.refusal},
            "memory": asdict(self.ready.memory) | {"data_on_device": self.ready.data_held},
            "max_batch_size": self.capacity.max_batch_size,
            "overhead_seconds": None if law is None else law.overhead_s,
            "seconds_per_example": None if law is None else law.per_example_s,
            "knee_batch_size": None if law is None else law.knee,
            "batch_sizes": [asdict(row) for row in _rows(self.capacity, self.ready.program.train_examples)],
            "probe_seconds": self.probe_seconds,
        }


def inspect_machine(
    question: Question,
    space: SearchSpace,
    options: Options,
    listener: Listener,
    *,
    check: Callable[[Ready], None] = lambda ready: None,
) -> Inspection:
    """Probe this machine with a question's program; nothing is kept.

    Args:
        question: whose model and data.
        space: which batch sizes.
        options: device, memory limit, data.
        listener: told how far it is.
        check: shown what is to be measured before it is; may raise.

    Raises:
        BatchoptError: something the user can mend.
        Interrupted: by a signal.
    """
    listener(Starting(1))
    with Interruption() as interruption:
        setup = first_setup(question.task, options, space, goal=question.goal, budget=Budget(), known_engines={})
        with ready_slot(setup, smallest=space.smallest, interruption=interruption, listener=listener) as slot:
            assert slot.ready is not None
            check(slot.ready)
            engine_seconds, started = slot.ready.engine_seconds, time.monotonic()
            sizes = [size for size in space.grid_batch_sizes().tolist() if size <= slot.ready.program.train_examples]
            capacity = new_capacity(slot.ready, SearchSpace(sizes, space.learning_rate, space.extra))
            capacity = measured(slot, capacity, timed=True, interruption=interruption, listener=listener)
            seconds = engine_seconds + time.monotonic() - started
    assert slot.ready is not None
    return Inspection(slot.ready, capacity, seconds)


def join_study(
    question: Question, storage: str, name: str | None, options: Options, listener: Listener
) -> tuple[str, Inspection]:
    """Probe this machine with a study's program and batch sizes, and keep what is found with the study.

    From then on the study's report answers for this machine too, and a session here need not probe again.

    Args:
        question: whose model and data; they are to be the study's.
        storage: a path or an SQLAlchemy URL.
        name: of the study; may be None where the database holds only one.
        options: device, memory limit, data.
        listener: told how far it is.

    Returns:
        The study's name, and what was found.

    Raises:
        StudyMismatch: the study has another program.
        BatchoptError: something else the user can mend.
        Interrupted: by a signal.
    """
    name, stamp = read_stamp(storage, name)
    where = shown_storage(storage)
    found = inspect_machine(
        question,
        stamp.space,
        options,
        listener,
        check=lambda ready: check_program(name, where, stamp, ready.program),
    )
    with opened(storage, create=True) as database:
        transactions = Transactions(database.db.url, say=lambda line: listener(Noted(line)))
        study = transactions.again(lambda: open_study(database, name))
        ledger = StudyLedger(database.db, study, Records(database.db), transactions)
        ledger.add_machine(found.ready.machine, found.ready.engine)
        key = measured_on(found.ready.machine, found.ready.program, found.ready.engine)
        capacity = found.capacity
        ledger.add_measurements(key, options.memory_limit, capacity.step_rows, capacity.rows, anew=True)
    return name, found


def _rows(capacity: Capacity, train_examples: int) -> list[BatchSizeCost]:
    timed = {row.batch_size: row for row in capacity.step_rows}
    largest = capacity.max_batch_size
    rows = []
    for size in capacity.sizes:
        row = timed.get(size)
        seconds = None if capacity.steps is None else capacity.steps(size)
        rows.append(
            BatchSizeCost(
                batch_size=size,
                step_time_s=None if row is None else row.step_time_s,
                spread_s=None if row is None else row.spread_s,
                seconds_per_epoch=seconds,
                examples_per_second=None if seconds is None else train_examples / seconds,
                memory_bytes=capacity.needed(size),
                fits=largest is None or size <= largest,
            )
        )
    return rows
