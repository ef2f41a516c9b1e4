"""Energy: counters of the processor in a tree of real files, as the kernel shows them, and watts by batch size."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
from batchopt.machine import processor_energy
from batchopt.machine.energy import Power, zeus_price
from batchopt.machine.processor_energy import ProcessorMeter

RANGE_UJ = 262_143_328_850


def zone(root: Path, name: str, counted_uj: int, *, called: str = "package-0", **files: int) -> Path:
    """A zone as the kernel shows it; returns its counter."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{called}\n")
    for file, value in {"energy_uj": counted_uj, "max_energy_range_uj": RANGE_UJ, **files}.items():
        (folder / file).write_text(f"{value}\n")
    return folder / "energy_uj"


def test_the_packages_are_counted_together_and_their_parts_not_again(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", 5_000_000, called="package-1")
    for part, called in {"intel-rapl:0:0": "core", "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0"}.items():
        zone(tmp_path, part, 0, called=called)
    meter = ProcessorMeter(tmp_path, watched=False)
    assert (meter.lacking(), meter.joules()) == ("", 0.0)
    first.write_text("3500000\n")
    second.write_text("6000000\n")
    for other in ("intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        (tmp_path / other / "energy_uj").write_text("9000000\n")
    assert meter.joules() == pytest.approx(3.5)


def test_a_counter_that_begins_again_goes_on_where_it_was(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", RANGE_UJ - 2_000_000)
    meter = ProcessorMeter(tmp_path, watched=False)
    counter.write_text("1000000")
    assert meter.joules() == pytest.approx(3.0)
    counter.write_text("4000000")
    assert meter.joules() == pytest.approx(6.0)


def test_a_meter_reads_by_itself_so_that_no_wrap_of_a_long_epoch_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice around between two readings of the worker's: the counter ends above where it began."""
    monkeypatch.setattr(processor_energy, "MOST_W", 50_000.0)
    counter = zone(tmp_path, "intel-rapl:0", 900_000_000, max_energy_range_uj=1_000_000_000)
    meter = ProcessorMeter(tmp_path)
    for counted_uj in (100_000_000, 600_000_000, 50_000_000, 950_000_000):
        # In one piece, as the kernel's own files are read.
        (tmp_path / "new").write_text(str(counted_uj))
        os.replace(tmp_path / "new", counter)
        time.sleep(0.1)
    assert meter.joules() == pytest.approx(200 + 500 + 450 + 900)


@pytest.mark.parametrize("missing", ["energy_uj", "all"])
def test_without_rights_or_counters_a_meter_says_nothing_but_why(missing: str, tmp_path: Path) -> None:
    if missing == "energy_uj":
        # The kernel's file is root's alone; as root, who may read anything, it is one that cannot be read as a file.
        counter = zone(tmp_path, "intel-rapl:0", 0)
        counter.unlink()
        counter.mkdir()
    meter = ProcessorMeter(tmp_path)
    assert meter.joules() is None
    why = "cannot be read without root's rights" if missing == "energy_uj" else "the kernel shows no energy counter"
    assert why in meter.lacking()


def test_what_packages_may_draw_is_what_they_say_or_what_was_set(tmp_path: Path) -> None:
    assert ProcessorMeter(tmp_path).max_power_w() is None
    limits = {"constraint_0_max_power_uw": 0, "constraint_0_power_limit_uw": 65_000_000}
    zone(tmp_path, "intel-rapl:0", 0, **(limits | {"constraint_0_max_power_uw": 125_000_000}))
    assert ProcessorMeter(tmp_path, watched=False).max_power_w() == pytest.approx(125.0)
    zone(tmp_path, "intel-rapl:1", 0, called="package-1", **limits)
    assert ProcessorMeter(tmp_path, watched=False).max_power_w() == pytest.approx(190.0)
    zone(tmp_path, "intel-rapl:2", 0, called="package-2")
    assert ProcessorMeter(tmp_path, watched=False).max_power_w() is None


def test_watts_are_those_of_all_epochs_of_a_size_and_lie_between_those_of_its_neighbours() -> None:
    """A counter that ticks once in two epochs tells the same as one that ticks in each."""
    power = Power()
    assert (power.known, power(64)) == (False, 1.0)
    for joules in (0.0, 10.0, 0.0, 10.0):
        power.tell(16, joules, 0.05)
    power.tell(16, None, 1.0)
    power.tell(64, 80.0, 0.2)
    power.tell(256, 0.0, 0.01)
    assert power.known
    assert [power(size) for size in (8, 16, 64, 1024)] == pytest.approx([100.0, 100.0, 400.0, 400.0])
    assert power(32) == pytest.approx(200.0)


def test_zeus_price_is_watts_at_one_and_the_maximum_at_none() -> None:
    power = Power(max_w=300.0)
    power.tell(16, 100.0, 1.0)
    assert [zeus_price(power, weight)(16) for weight in (0.0, 0.5, 1.0)] == pytest.approx([300.0, 200.0, 100.0])
    unlimited = Power()
    assert math.isclose(zeus_price(unlimited, 1.0)(16), 1.0)
