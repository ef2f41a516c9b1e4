"""What a study knows of its machine: what fits, by what was tried and what is foreseen, and what an epoch costs."""

from __future__ import annotations

import pytest
from batchopt.machine.capacity import Capacity
from batchopt.measured import DeviceMemory, MemoryRow, StepTime

MIB = 1 << 20
SIZES = [2**k for k in range(3, 14)]
MEMORY = DeviceMemory(400 * MIB, resident_bytes=100 * MIB, beginning_bytes=4 * MIB)


def climbed(*sizes: int) -> Capacity:
    """0.1 MiB an example: 400 MiB hold 2048, and not 4096."""
    capacity = Capacity(SIZES, MEMORY)
    for size in sizes:
        capacity.record_measurement(size, size * MIB // 10, MEMORY)
    return capacity


def test_what_nothing_is_known_of_may_be_tried_and_bounds_nothing() -> None:
    capacity = Capacity(SIZES, MEMORY)
    assert capacity.fits(8192)
    assert capacity.max_batch_size is None


def test_three_small_sizes_foretell_the_boundary() -> None:
    capacity = climbed(8, 16, 32)
    assert [size for size in SIZES if capacity.fits(size)] == SIZES[:-2]


def test_only_what_was_verified_is_proposed() -> None:
    assert climbed(8, 16, 2048).max_batch_size == 2048
    assert climbed(8, 16, 8192).max_batch_size is None


def test_a_size_that_fails_takes_all_larger_ones_with_it_and_those_below_stay() -> None:
    capacity = climbed(8, 64, 2048)
    capacity.record_failure(512)
    assert (capacity.failed, capacity.verified, capacity.max_batch_size) == (512, 64, 511)
    assert not capacity.fits(1024)
    assert capacity.fits(256)


def test_what_was_verified_once_is_held_against_the_memory_there_is_now() -> None:
    """51 MiB beside what is resident hold 512 of 0.1 MiB each, whatever another session has verified."""
    recorded = [MemoryRow(size, size * MIB // 10, True) for size in (8, 64, 512, 8192)]
    now = DeviceMemory(152 * MIB, resident_bytes=100 * MIB)
    assert Capacity(SIZES, MEMORY, recorded[:3]).max_batch_size == 512
    assert Capacity(SIZES, now, recorded).max_batch_size == 512
    assert Capacity(SIZES, DeviceMemory(100 * MIB, 100 * MIB), recorded).max_batch_size == 7
    assert Capacity(SIZES, DeviceMemory(2000 * MIB, 100 * MIB), recorded).max_batch_size is None


def test_what_this_session_has_tried_fits_whatever_is_foretold() -> None:
    capacity = Capacity(SIZES, MEMORY)
    for size in (8, 16, 1024):
        capacity.record_measurement(size, 10 * size * MIB, MEMORY)
    assert capacity.max_batch_size == 1024


def test_a_verified_size_that_runs_out_is_out_for_the_session_and_not_for_good() -> None:
    """Memory may be short for a while only."""
    capacity = climbed(8, 64, 2048)
    before = capacity.rows
    assert not capacity.record_out_of_memory(512, capacity.machine)
    assert (capacity.max_batch_size, capacity.rows) == (511, before)


def test_a_size_that_was_never_verified_and_runs_out_is_out_for_good() -> None:
    capacity = climbed(8, 64)
    assert capacity.record_out_of_memory(512, capacity.machine)
    assert (capacity.max_batch_size, capacity.failed) == (64, 512)


def test_another_machine_that_joins_bounds_what_is_proposed_and_its_shortage_is_its_own() -> None:
    capacity = climbed(8, 64, 2048, 8192)
    assert capacity.max_batch_size is None
    capacity.record_machine(capacity.machine, DeviceMemory(1, 0))
    assert capacity.max_batch_size is None
    capacity.record_machine("smaller", DeviceMemory(210 * MIB, resident_bytes=100 * MIB))
    assert capacity.max_batch_size == 1024
    before = capacity.rows
    assert not capacity.record_out_of_memory(512, "smaller")
    assert (capacity.max_batch_size, capacity.rows) == (511, before)


def test_by_how_much_it_is_too_large_is_foreseen() -> None:
    capacity = climbed(8, 16, 32)
    need = capacity.needed(8192)
    assert need is not None
    assert capacity.bytes_over(8192) == need - 400 * MIB > 400 * MIB
    assert capacity.bytes_over(8) == 1.0


def test_the_compilers_word_holds_until_something_was_tried() -> None:
    capacity = Capacity(SIZES, MEMORY)
    capacity.record_prediction(8192, 390 * MIB)
    assert not capacity.fits(8192)
    assert capacity.fits(8)
    capacity.record_measurement(8192, 200 * MIB, MEMORY)
    capacity.record_prediction(8192, 390 * MIB)
    assert capacity.rows == [MemoryRow(8192, 200 * MIB, True)]


def test_an_allocator_that_rounds_up_does_not_overrule_the_compiler() -> None:
    capacity = Capacity(SIZES, MEMORY)
    capacity.record_prediction(512, 10 * MIB)
    capacity.record_measurement(512, 16 * MIB, MEMORY)
    assert capacity.rows == [MemoryRow(512, 10 * MIB, True)]
    capacity.record_measurement(512, 40 * MIB, MEMORY)
    assert capacity.rows == [MemoryRow(512, 40 * MIB, True)]


def test_epochs_side_by_side_say_nothing_of_the_machine() -> None:
    capacity = climbed(8, 64)
    capacity.record_step_times([StepTime(size, size * 1e-5, 0.0, 0.0, 3) for size in (8, 64)], train_examples=6400)
    law = capacity.seconds_per_epoch()
    assert law is not None
    before = law(64)
    capacity.record_epoch(64, 9 * before, side_by_side=True)
    assert law(64) == before
    capacity.record_epoch(64, 2 * before, side_by_side=False)
    assert law(64) == pytest.approx(2 * before)


def test_a_deterministic_study_counts_with_what_the_probe_has_kept() -> None:
    """What an epoch took differs from one time to the next, and with it what a search would decide."""
    capacity = climbed(8, 64)
    capacity.record_step_times([StepTime(size, size * 1e-5, 0.0, 0.0, 3) for size in (8, 64)], train_examples=6400)
    kept = capacity.seconds_per_epoch(refined=False)
    assert kept is not None
    before = kept(64)
    capacity.record_epoch(64, 2 * before, side_by_side=False)
    assert kept(64) == before


def test_a_larger_batch_is_never_foreseen_to_need_less_than_a_smaller_one() -> None:
    """Where it was seen to, one of the two was seen wrongly."""
    capacity = Capacity(SIZES, MEMORY)
    for size, mebibytes in ((8, 30), (16, 28), (1024, 100)):
        capacity.record_measurement(size, mebibytes * MIB, MEMORY)
    needs = [capacity.step_bytes(size) for size in SIZES]
    assert needs == sorted(needs, key=lambda need: need or 0)
    assert needs[:2] == [30 * MIB, 30 * MIB]


def test_with_micro_batches_any_size_is_proposed_and_costs_what_the_largest_that_fits_costs_an_example() -> None:
    capacity = Capacity(SIZES, MEMORY, accumulate=True)
    for size in (8, 64, 512):
        capacity.record_measurement(size, size * MIB // 10, MEMORY)
    capacity.record_failure(1024)
    assert (capacity.held, capacity.max_batch_size) == (512, None)
    assert [capacity.micro_batch_size(size) for size in (64, 512, 1024, 8192)] == [None, None, 512, 512]
    capacity.record_step_times([StepTime(size, size * 1e-5 + 1e-3, 0.0, 0.0, 3) for size in (8, 64, 512)], 8192)
    law = capacity.seconds_per_epoch()
    assert law is not None
    assert law(8192) == pytest.approx(law(1024)) == pytest.approx(law(512))
    capacity.record_epoch(8192, 2 * law(512), side_by_side=False)
    assert law(8192) == pytest.approx(2 * 16 * (512e-5 + 1e-3))


def test_a_shortage_makes_micro_batches_smaller_until_there_is_no_smaller_size() -> None:
    capacity = Capacity(SIZES[:2], MEMORY, accumulate=True)
    assert capacity.at_once(16) == 16
    assert capacity.record_out_of_memory(16, capacity.machine)
    assert (capacity.at_once(16), capacity.max_batch_size) == (8, None)
    assert capacity.record_out_of_memory(8, capacity.machine)
    assert (capacity.at_once(16), capacity.max_batch_size) == (16, 7)
