"""One study, several machines: epochs are evidence everywhere, seconds and memory are each machine's own."""

from __future__ import annotations

import dataclasses

import pytest
from batchopt.cli.batchopt import batchopt
from batchopt.errors import InvalidInput
from batchopt.machine.machine import Machine, available_cores, processor
from batchopt.measured import MemoryRow, StepTime
from batchopt.report.answer.places import chosen, names_of
from batchopt.report.show.study_report import read_report
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.measurements import Measurements, measured_on
from click.testing import CliRunner
from written_study import MACHINE, PROGRAM, begin, epoch, new_study

TESLA = dataclasses.replace(MACHINE, device="Tesla", kind="gpu", cores=16, gpus=1)
STEPS = {16: -(-PROGRAM.train_examples // 16), 64: -(-PROGRAM.train_examples // 64), 256: 4}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """On the Abacus 256 is best, which does not fit on the Tesla; there 64 was trained, and 16 and 64 were timed."""
    path = str(tmp_path_factory.mktemp("machines") / "studies.db")
    database = open_database(path, create=True)
    ledger = Ledger(database, new_study(database))
    measurements = Measurements(database.db)
    for machine, engine in ((MACHINE, "fused-xla"), (TESLA, "fused")):
        ledger.add_machine(machine, engine)
    for machine, batch_size, accuracies, seconds in (
        (MACHINE, 256, [0.75, 0.96875], 0.5),
        (MACHINE, 16, [0.75, 0.9375], 8.0),
        (TESLA, 64, [0.5, 0.875], 0.25),
    ):
        number = begin(ledger, batch_size)
        for at, accuracy in enumerate(accuracies, start=1):
            speed = PROGRAM.train_examples / seconds
            figures = epoch(at, accuracy, train_seconds=seconds, steps=STEPS[batch_size], examples_per_second=speed)
            ledger.add_epoch(number, machine, figures, compile_seconds=0.0)
        ledger.complete(number, accuracies[-1])
    key = measured_on(TESLA, PROGRAM, "fused")
    timed = [StepTime(size, 0.25 / STEPS[size], 0.0, 0.0, 9) for size in (16, 64)]
    measurements.add_step_times(key, timed)
    measurements.add_memory(key, None, [MemoryRow(64, 1000, True), MemoryRow(256, None, False)])
    database.db.dispose()
    return path


def test_a_machine_is_advised_from_all_trials_at_its_own_seconds_and_within_its_own_memory(storage: str) -> None:
    abacus = read_report(storage, on="abacus")
    assert abacus.recommendation is not None
    assert (abacus.recommendation.batch_size, abacus.recommendation.train_seconds) == (256, 1.0)
    tesla = read_report(storage, on=TESLA.fingerprint[:5])
    assert tesla.recommendation is not None
    # 63 steps of 0.25 / 63 s, the last of them a partial one.
    assert tesla.recommendation.batch_size == 16
    assert tesla.recommendation.train_seconds == pytest.approx(2 * 0.25, rel=0.02)
    assert tesla.recommendation.value == 0.9375
    assert [row.batch_size for row in tesla.by_batch_size] == [16, 64]
    assert tesla.machine["device"] == "Tesla"
    assert tesla.trials == abacus.trials == {"complete": 3}


def test_what_changes_from_machine_to_machine_is_said(storage: str) -> None:
    for on in ("Abacus", "Tesla"):
        advice = {machine.name: machine for machine in read_report(storage, on=on).machines}
        assert {name: machine.batch_size for name, machine in advice.items()} == {
            "Abacus, 2 cores": 256,
            "Tesla, 16 cores": 16,
        }
        assert advice["Tesla, 16 cores"].max_batch_size == 64
    shown = (
        CliRunner().invoke(batchopt, ["report", "--storage", storage, "--on", "tesla"], catch_exceptions=False).output
    )
    assert f"  on Abacus, 2 cores ({MACHINE.fingerprint}): 256 x 0.01, 1 s of training" in shown
    assert f"* on Tesla, 16 cores ({TESLA.fingerprint}): 16 x 0.01" in shown
    assert "holds batch sizes up to 64" in shown


def test_without_a_machine_that_is_asked_for_the_first_one_counts_and_this_one_before_it(storage: str) -> None:
    assert read_report(storage).machine["device"] == "Abacus"
    here = Machine("Here", "cpu", processor(), available_cores(), memory_bytes=1, versions={})
    machines = {machine.fingerprint: machine.describe() for machine in (MACHINE, here)}
    assert chosen(None, machines, names_of(machines)) == here.fingerprint


def test_a_machine_that_is_none_or_two_is_refused_with_those_there_are(storage: str) -> None:
    with pytest.raises(InvalidInput, match=r"--on Cray is no machine of this study; it has Abacus, 2 cores \("):
        read_report(storage, on="Cray")
    with pytest.raises(InvalidInput, match="--on cores is more than one machine of this study"):
        read_report(storage, on="cores")


def test_machines_of_one_name_are_told_apart_by_their_codes() -> None:
    other = dataclasses.replace(MACHINE, processor="Abacus II")
    names = names_of({machine.fingerprint: machine.describe() for machine in (MACHINE, other)})
    assert names[other.fingerprint] == f"Abacus, 2 cores, {other.fingerprint[:6]}"
