"""The laws: what is true of batch sizes before anything is trained."""

from __future__ import annotations

import math

import numpy as np
import pytest
from batchopt.errors import InvalidInput
from batchopt.search.laws import (
    fastest_batch_size,
    fitted_steps_law,
    gradient_noise_scale,
    steps_to_target,
)


def test_twice_the_least_steps_are_needed_at_the_critical_batch_size():
    assert steps_to_target(500, min_steps=300, critical_batch_size=500) == pytest.approx(600)


def test_more_examples_a_step_never_need_more_steps_and_never_fewer_examples():
    sizes = 2 ** np.arange(14)
    steps = steps_to_target(sizes, min_steps=300, critical_batch_size=500)
    assert (np.diff(steps) < 0).all() and (np.diff(steps * sizes) > 0).all() and (steps > 300).all()


def test_time_to_target_is_least_where_overhead_balances_noise():
    overhead_s, per_example_s, critical = 2e-4, 1e-7, 500.0
    batch_sizes = np.arange(1, 10_000)
    steps = steps_to_target(batch_sizes, min_steps=300, critical_batch_size=critical)
    time_s = steps * (overhead_s + per_example_s * batch_sizes)
    expected = fastest_batch_size(critical_batch_size=critical, overhead_s=overhead_s, per_example_s=per_example_s)
    assert expected == pytest.approx(math.sqrt(overhead_s * critical / per_example_s))
    assert batch_sizes[time_s.argmin()] == pytest.approx(expected, abs=1)


def test_where_an_example_costs_nothing_the_largest_batch_is_fastest():
    assert fastest_batch_size(critical_batch_size=500, overhead_s=1e-4, per_example_s=0.0) == math.inf


def test_the_noise_scale_is_found_from_two_batch_sizes():
    """E|G_B|^2 = |G|^2 + tr(Sigma) / B, so that both are found exactly where the expectations are."""
    signal, noise = 2.0, 900.0
    norms = {size: signal + noise / size for size in (32, 1024)}
    assert gradient_noise_scale(norms[32], norms[1024], small=32, big=1024) == pytest.approx(noise / signal)


def test_without_signal_the_noise_scale_is_infinite():
    assert gradient_noise_scale(1.0, 0.01, small=32, big=1024) == math.inf


@pytest.mark.parametrize(("small", "big"), [(64, 64), (64, 32), (0, 32)])
def test_the_noise_scale_needs_two_batch_sizes(small, big):
    with pytest.raises(InvalidInput, match="small < big"):
        gradient_noise_scale(1.0, 1.0, small=small, big=big)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="above 0"):
        steps_to_target([32, 0], min_steps=1, critical_batch_size=1)


def test_the_law_of_steps_is_found_again_in_what_follows_it():
    sizes = np.array([8.0, 32, 128, 512, 2048])
    law = fitted_steps_law(sizes, steps_to_target(sizes, min_steps=300, critical_batch_size=200))
    assert law is not None
    assert (law.min_steps, law.critical_batch_size) == pytest.approx((300, 200))
    assert law.low == pytest.approx(law.high) == pytest.approx(200)
    assert law.followed
    assert law(200.0) == pytest.approx(600)


def test_measurements_that_do_not_follow_the_law_of_steps_are_said_not_to():
    law = fitted_steps_law([8, 32, 128, 512], [1000, 300, 900, 200])
    assert law is not None
    assert law.worst > 1 / 3
    assert not law.followed


def test_where_steps_level_off_by_one_measurement_alone_there_is_no_upper_bound():
    """Without the largest they fall as 1 / batch size, and the critical one may be anything above."""
    law = fitted_steps_law([8, 32, 128, 512], [1600, 400, 100, 90])
    assert law is not None
    assert law.high is None
    assert 0 < law.low <= law.critical_batch_size
    assert (law.smallest, law.largest) == (8, 512)


def test_the_law_of_steps_needs_three_batch_sizes_and_steps_that_level_off():
    assert fitted_steps_law([8, 32], [1000, 300]) is None
    assert fitted_steps_law([8, 32, 128], [1600, 400, 100]) is None
