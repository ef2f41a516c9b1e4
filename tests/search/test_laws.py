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
    scaled_learning_rate,
    step_time_s,
    steps_to_target,
    time_to_target_s,
)


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_four_times_the_batch_scales_the_rate_by_the_rule(rule, factor):
    assert scaled_learning_rate(1e-3, 128, reference_batch_size=32, rule=rule) == pytest.approx(factor * 1e-3)


def test_a_rule_changes_nothing_at_the_reference_batch_size():
    for rule in ("linear", "sqrt", "none"):
        assert scaled_learning_rate(3e-3, 32, reference_batch_size=32, rule=rule) == pytest.approx(3e-3)


def test_twice_the_least_steps_are_needed_at_the_critical_batch_size():
    assert steps_to_target(500, min_steps=300, critical_batch_size=500) == pytest.approx(600)


def test_more_examples_a_step_never_need_more_steps_and_never_fewer_examples():
    sizes = 2 ** np.arange(14)
    steps = steps_to_target(sizes, min_steps=300, critical_batch_size=500)
    assert (np.diff(steps) < 0).all() and (np.diff(steps * sizes) > 0).all() and (steps > 300).all()


def test_time_to_target_is_least_where_overhead_balances_noise():
    overhead_s, per_example_s, critical = 2e-4, 1e-7, 500.0
    batch_sizes = np.arange(1, 10_000)
    time_s = time_to_target_s(
        batch_sizes, min_steps=300, critical_batch_size=critical, overhead_s=overhead_s, per_example_s=per_example_s
    )
    expected = fastest_batch_size(critical_batch_size=critical, overhead_s=overhead_s, per_example_s=per_example_s)
    assert expected == pytest.approx(math.sqrt(overhead_s * critical / per_example_s))
    assert batch_sizes[time_s.argmin()] == pytest.approx(expected, abs=1)


def test_where_an_example_costs_nothing_the_largest_batch_is_fastest():
    assert fastest_batch_size(critical_batch_size=500, overhead_s=1e-4, per_example_s=0.0) == math.inf


def test_a_step_of_one_example_still_pays_the_overhead():
    assert step_time_s([1, 1001], overhead_s=1e-3, per_example_s=1e-6) == pytest.approx([1.001e-3, 2.001e-3])


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


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="linear, sqrt, none"):
        scaled_learning_rate(1e-3, 64, reference_batch_size=32, rule="cubic")


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
