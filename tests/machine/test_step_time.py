"""Seconds per epoch at sizes that were not probed, from those that were."""

from __future__ import annotations

import pytest
from batchopt.machine.step_time import StepTimeLaw
from batchopt.measured import StepTime

EXAMPLES = 50_000


def row(batch_size: int, step_time_s: float) -> StepTime:
    return StepTime(batch_size, step_time_s, spread_s=0.0, epoch_overhead_s=0.001, count=3)


def affine(batch_size: int) -> float:
    return 2e-4 + 5e-6 * batch_size


LAW = StepTimeLaw([row(size, affine(size)) for size in (8, 64, 512, 2048, 8192)], EXAMPLES)


@pytest.mark.parametrize("batch_size", [16, 32, 128, 256, 1024, 4096])
def test_between_probed_sizes_an_affine_step_time_is_kept(batch_size: int) -> None:
    assert LAW.step_time_s(batch_size) == pytest.approx(affine(batch_size), rel=0.12)


def test_the_knee_is_where_overhead_and_work_are_equal() -> None:
    assert LAW.overhead_s == pytest.approx(2e-4, rel=1e-6)
    assert LAW.per_example_s == pytest.approx(5e-6, rel=1e-6)
    assert LAW.knee == pytest.approx(40)


def test_an_epoch_is_its_whole_steps_its_partial_one_and_what_an_epoch_adds() -> None:
    expected = (EXAMPLES // 8192) * affine(8192) + 0.001
    rest = EXAMPLES % 8192
    assert LAW(8192) == pytest.approx(expected + LAW.step_time_s(rest))
    assert LAW(8) == pytest.approx(EXAMPLES // 8 * affine(8) + 0.001)


def test_a_timing_that_falls_with_the_batch_size_is_noise() -> None:
    law = StepTimeLaw([row(8, 1e-3), row(64, 5e-4), row(512, 2e-3)], EXAMPLES)
    seconds = [law.step_time_s(size) for size in (1, 8, 16, 64, 128, 512, 4096)]
    assert seconds == sorted(seconds)


def test_epochs_that_were_trained_correct_the_probe_there_and_around() -> None:
    law = StepTimeLaw([row(size, affine(size)) for size in (8, 64, 512, 2048, 8192)], EXAMPLES)
    before = {size: law(size) for size in (8, 64, 512, 8192)}
    for seconds in (1.0, 1.5, 9.0):
        law.tell(64, seconds * before[64])
    assert law(64) == pytest.approx(1.5 * before[64])
    assert law(8) == pytest.approx(1.5 * before[8])
    law.tell(8192, before[8192])
    assert law(8192) == pytest.approx(before[8192])
    assert before[512] < law(512) < 1.5 * before[512]


def test_one_probed_size_is_taken_to_cost_by_the_example() -> None:
    law = StepTimeLaw([row(64, 1e-3)], EXAMPLES)
    assert law.step_time_s(128) == pytest.approx(2e-3)
    assert law.knee is None or law.knee < 1e-6 or law.knee > 1e6
