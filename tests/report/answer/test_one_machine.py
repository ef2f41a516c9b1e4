"""What a study knows of its one machine is in its report: what fits, what a step costs, whose seconds count."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from batchopt.measured import MemoryRow, StepTime
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.sentences import machine_sentences
from batchopt.report.show.study_report import read_report
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.measurements import measured_on
from written_study import MACHINE, PROGRAM, begin, epoch, new_study

KEY = measured_on(MACHINE, PROGRAM, "fused")
STEP_TIMES = [StepTime(size, 1e-3 + 1e-4 * size, 0.0, 0.0, 9) for size in (16, 64, 256)]


def train(ledger: Ledger, batch_size: int, accuracies: list[float], **figures: float) -> None:
    number = begin(ledger, batch_size)
    for at, accuracy in enumerate(accuracies, start=1):
        ledger.add_epoch(number, MACHINE, epoch(at, accuracy, **figures), compile_seconds=0.0)
    ledger.complete(number, accuracies[-1])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """16 and 64 were trained; nothing is known of 256."""
    database = open_database(str(tmp_path / "studies.db"), create=True)
    ledger = Ledger(database, new_study(database))
    ledger.add_machine(MACHINE, "fused")
    train(ledger, 16, [0.75, 0.875], train_seconds=6.0)
    train(ledger, 64, [0.75, 0.8125], train_seconds=2.0)
    return ledger


@pytest.fixture
def storage(ledger: Ledger, tmp_path: Path) -> str:
    return str(tmp_path / "studies.db")


def test_a_batch_size_that_does_not_fit_is_neither_advised_nor_compared(ledger: Ledger, storage: str) -> None:
    sizes = [row.batch_size for row in read_report(storage).advice.by_batch_size]  # type: ignore[union-attr]
    assert sizes == [16, 64, 256], "nothing says yet that 256 does not fit"
    ledger.add_measurements(KEY, None, STEP_TIMES, [MemoryRow(64, 1000, True), MemoryRow(256, None, False)])
    report = read_report(storage)
    assert report.advice is not None
    assert [row.batch_size for row in report.advice.by_batch_size] == [16, 64]
    assert 256 not in [row.batch_size for row in report.advice.undecided]
    assert report.max_batch_size == json.loads(json.dumps(report.describe()))["max_batch_size"] == 64
    assert machine_sentences(report)[0] == "The largest batch size known to fit in memory is 64."
    assert report.machines == []


def test_the_limit_that_a_study_was_run_under_holds_in_its_report(ledger: Ledger, storage: str) -> None:
    """Measured twice, with all the memory there is and under a limit; the last session's counts."""
    rows = [MemoryRow(64, 1000, True), MemoryRow(256, 1000, True)]
    ledger.add_measurements(KEY, None, STEP_TIMES, rows)
    assert read_report(storage).max_batch_size == 256
    ledger.add_measurements(KEY, 64 << 20, STEP_TIMES, [rows[0], MemoryRow(256, 1000, False)])
    report = read_report(storage)
    assert (report.max_batch_size, report.memory_bytes) == (64, 64 << 20)
    assert machine_sentences(report)[0] == "The largest batch size known to fit in memory of 64 MiB is 64."
    ledger.add_measurements(KEY, None, STEP_TIMES, rows)
    assert read_report(storage).max_batch_size == 256


def test_what_an_untried_batch_size_costs_is_what_the_probe_foretells(ledger: Ledger, storage: str) -> None:
    """256 was never trained; its steps take half as long as the probe says, as those of 64 do."""
    ledger.add_measurements(KEY, None, STEP_TIMES, [MemoryRow(256, 1000, True)])
    advice = read_report(storage).advice
    assert advice is not None
    estimate = advice.at(256)
    steps = 3 * STEP_TIMES[2].step_time_s + STEP_TIMES[2].step_time_s * (232 / 256)
    trained = 2.0 / (15 * STEP_TIMES[1].step_time_s + STEP_TIMES[1].step_time_s * (40 / 64))
    assert estimate is not None
    assert estimate.seconds == pytest.approx(2 * steps * trained, rel=0.05)


def test_the_law_of_step_times_is_told_with_its_interval(ledger: Ledger, storage: str) -> None:
    ledger.add_measurements(KEY, None, STEP_TIMES, [])
    law = read_report(storage).step_time
    assert law is not None
    assert (law.overhead_s, law.per_example_s) == pytest.approx((1e-3, 1e-4))
    assert law.overhead_low == pytest.approx(law.overhead_high)
    assert law.followed
    bent = [dataclasses.replace(STEP_TIMES[0], step_time_s=0.02), *STEP_TIMES[1:], StepTime(1024, 0.03, 0.0, 0.0, 9)]
    ledger.add_measurements(KEY, None, bent, [])
    law = read_report(storage).step_time
    assert law is not None
    assert law.overhead_low < law.overhead_s < law.overhead_high
    assert not law.followed
    assert "are not affine" in machine_sentences(read_report(storage))[-1]


def test_seconds_that_were_taken_side_by_side_are_not_the_machines(ledger: Ledger, storage: str) -> None:
    """Nine seconds side by side with another worker, one alone: one is what it takes."""
    ledger.add_measurements(KEY, None, STEP_TIMES, [])
    train(ledger, 256, [0.75, 0.96875], train_seconds=9.0, side_by_side=True)
    train(ledger, 256, [0.75, 0.96875], train_seconds=1.0)
    train(ledger, 256, [0.75, 0.96875], train_seconds=9.0, side_by_side=True)
    report = read_report(storage)
    assert report.recommendation is not None
    assert report.recommendation.batch_size == 256
    assert report.recommendation.train_seconds == pytest.approx(2 * 1.0)
    assert {row.batch_size: row.seconds_per_epoch for row in report.by_batch_size}[256] == pytest.approx(1.0)


def test_a_trial_that_was_good_and_then_diverged_is_not_the_best_of_its_batch_size(
    ledger: Ledger, storage: str
) -> None:
    number = begin(ledger, 64)
    ledger.add_epoch(number, MACHINE, epoch(1, 0.99), compile_seconds=0.0)
    ledger.add_epoch(number, MACHINE, epoch(2, 0.99, train_loss=float("nan")), compile_seconds=0.0)
    ledger.diverge(number)
    evidence = read_evidence(storage)
    row = next(row for row in evidence.report.by_batch_size if row.batch_size == 64)
    assert (row.value, row.trials, row.diverged) == (0.8125, 2, 1)
    assert evidence.report.to_target is not None
    assert evidence.report.to_target.nearest == 0.875
