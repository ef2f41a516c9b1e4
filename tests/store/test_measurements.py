"""What a probe has measured, read back by machine, program, engine and limit."""

from __future__ import annotations

import dataclasses

from batchopt.measured import MemoryRow, StepTime
from batchopt.store.database import Database
from batchopt.store.measurements import Measurements, measured_on
from written_study import MACHINE, PROGRAM

KEY = measured_on(MACHINE, PROGRAM, "fused")
ROWS = [StepTime(size, size / 2**20, spread_s=0.25, epoch_overhead_s=0.5, count=3) for size in (16, 64)]


def test_step_times_come_back_by_batch_size_and_a_new_one_replaces_the_old(database: Database) -> None:
    measurements = Measurements(database.db)
    measurements.add_step_times(KEY, list(reversed(ROWS)))
    assert measurements.step_times(KEY) == ROWS
    faster = dataclasses.replace(ROWS[0], step_time_s=1e-6)
    measurements.add_step_times(KEY, [faster])
    assert measurements.step_times(KEY) == [faster, ROWS[1]]


def test_another_machine_program_or_engine_has_its_own(database: Database) -> None:
    measurements = Measurements(database.db)
    measurements.add_step_times(KEY, ROWS)
    others = [
        measured_on(dataclasses.replace(MACHINE, cores=64), PROGRAM, "fused"),
        measured_on(MACHINE, dataclasses.replace(PROGRAM, train_examples=7), "fused"),
        measured_on(MACHINE, PROGRAM, "fit"),
    ]
    assert [measurements.step_times(key) for key in others] == [[], [], []]


def test_software_and_free_memory_do_not_make_another_machine() -> None:
    later = dataclasses.replace(MACHINE, versions={"python": "3.14"}, device_free_bytes=1)
    assert measured_on(later, PROGRAM, "fused") == KEY


def test_memory_is_known_for_each_limit_apart(database: Database) -> None:
    measurements = Measurements(database.db)
    rows = [MemoryRow(16, 1 << 40, True), MemoryRow(64, None, False), MemoryRow(256, 7, None)]
    measurements.add_memory(KEY, None, rows)
    measurements.add_memory(KEY, 1 << 30, rows[:1])
    assert measurements.memory(KEY, None) == rows
    assert measurements.memory(KEY, 1 << 30) == rows[:1]
    assert measurements.memory(KEY, 2 << 30) == []
