"""What a step needs at any batch size: affine where it is, quadratic where pairs are compared, never negative."""

from __future__ import annotations

import numpy as np
import pytest
from batchopt.machine.memory import RESERVE_BYTES, RESERVE_SHARE, MemoryLaw, largest_fitting, needed, shown_bytes
from batchopt.measured import DeviceMemory


def test_an_affine_need_is_found_from_three_small_sizes_and_holds_at_large_ones() -> None:
    law = MemoryLaw.fitted({size: 3e6 + 5e3 * size for size in (8, 64, 512)})
    assert law(50_000) == pytest.approx(3e6 + 5e3 * 50_000, rel=1e-6)
    assert law.per_pair == pytest.approx(0.0, abs=1e-6)


def test_a_need_that_grows_with_pairs_is_foreseen() -> None:
    law = MemoryLaw.fitted({size: 1e6 + 2e3 * size + 12.0 * size**2 for size in (8, 64, 512)})
    assert law(8192) == pytest.approx(1e6 + 2e3 * 8192 + 12.0 * 8192**2, rel=1e-6)


def test_noise_never_makes_a_need_fall_with_the_batch_size(rng: np.random.Generator) -> None:
    for _ in range(50):
        law = MemoryLaw.fitted({size: 1e6 * rng.uniform(0.5, 2.0) for size in (8, 32, 128, 512)})
        needs = [law(size) for size in range(1, 4096, 37)]
        assert needs == sorted(needs)
        assert needs[0] >= 0


def test_what_training_needs_is_the_greater_of_a_step_and_a_trials_beginning_and_a_reserve() -> None:
    memory = DeviceMemory(1 << 30, resident_bytes=100 << 20, beginning_bytes=50 << 20)
    assert needed(memory, 10 << 20) == round((150 << 20) * (1 + RESERVE_SHARE)) + RESERVE_BYTES
    assert needed(memory, 80 << 20) == round((180 << 20) * (1 + RESERVE_SHARE)) + RESERVE_BYTES


@pytest.mark.parametrize("largest", [None, 1, 2, 8, 64])
def test_bisection_finds_the_largest_that_fits_in_few_looks(largest: int | None) -> None:
    looks = []

    def fits(size: int) -> bool:
        looks.append(size)
        return largest is not None and size <= largest

    sizes = [2**k for k in range(7)]
    assert largest_fitting(sizes, fits) == largest
    assert len(looks) <= 3


def test_bytes_are_shown_in_the_units_that_the_option_takes() -> None:
    assert shown_bytes(3 << 20) == "3 MiB"
    assert shown_bytes(3 << 29) == "1.50 GiB"
