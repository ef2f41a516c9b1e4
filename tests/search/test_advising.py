"""What the evidence of a few real trials comes to."""

from __future__ import annotations

import math

from batchopt.question.space import SearchSpace
from batchopt.search.advising import COARSE_RATES, COARSE_SIZES, _others, advise
from batchopt.search.steps import Trial

SPACE = SearchSpace([8, 16, 32, 64, 128, 256, 512, 1024], (1e-4, 1e-1))

TRAINED = (
    (128, 0.00316, 0.9171), (512, 0.000229, 0.6501), (512, 0.0399, 0.8740), (32, 0.00127, 0.9220),
    (8, 0.0803, 0.2605), (64, 0.000683, 0.9034), (8, 0.000131, 0.8919), (64, 0.00205, 0.9146),
)  # fmt: skip
"""Eight runs of three epochs of the reference model on 5,000 images, all to the end: batch size, rate, accuracy."""

CLIFFS = (
    (256, 0.00316, 0.9727), (512, 0.0437, 0.9350), (32, 0.000229, 0.9602), (256, 0.000229, 0.9353),
    (8, 0.1, 0.1761), (1024, 0.0001, 0.5174), (64, 0.00133, 0.9733), (256, 0.0235, 0.9577),
    (128, 0.00422, 0.9740), (128, 0.00143, 0.9698), (128, 0.00339, 0.9708), (32, 0.00152, 0.9757),
)  # fmt: skip
"""Twelve of five epochs on all of MNIST, drawn from the recorded table: two fell off cliffs."""


def advised(trained=TRAINED, space=SPACE, **options):
    trials = [
        Trial(at, size, rate, {}, {3: (value, 30.0 / size)}, state="complete")
        for at, (size, rate, value) in enumerate(trained)
    ]
    return advise(trials, space, max_epochs=3, sign=1.0, seconds_per_epoch=lambda size: 30.0 / size, **options)


def test_few_trials_that_lie_far_apart_are_not_taken_for_runs_that_differ():
    """Each is far from what the other seven say of it, by how wrong that is and not by how lucky it was."""
    advice = advised()
    assert advice.run_sd < 0.01 and advice.tolerance < 0.02
    near = [advice.at(size) for size in (32, 64, 128)]
    assert all(row.high - row.low < 0.05 for row in near) and all(row.high < 0.94 for row in near)


def test_runs_that_fell_off_a_cliff_are_not_how_runs_differ_near_the_best():
    """With them 512, of which the only run had ended with 93.5 %, was recommended, with an interval of 76 to 99 %."""
    advice = advised(CLIFFS)
    assert 0.0005 < advice.run_sd < 0.004
    row = advice.recommended
    assert 0.965 < row.low < 0.9757 < row.high < 0.985


def test_a_batch_size_may_be_best_at_a_rate_that_nobody_tried():
    """So nobody is surer of the best of all than with the one rate that was tried as the only one."""
    trained = [(size, 0.01, 0.9 + 0.01 * (size == 32) + 1e-4 * at) for at in range(3) for size in (8, 32, 128, 512)]
    one, many = (advised(trained, space=SearchSpace([8, 32, 128, 512], rates)) for rates in ((0.01,) * 2, (1e-4, 1e-1)))
    assert one.recommended.batch_size == many.recommended.batch_size == 32
    assert one.recommended.chance_within > 0.95 > many.recommended.chance_within


def test_of_very_many_batch_sizes_some_are_looked_at_with_every_rate():
    sizes = list(range(10, 1010, 10))
    others = _others(SearchSpace(sizes, (1e-4, 1e-1)), Trial(0, 10, 0.01), sizes)
    looked_at = {configuration["batch_size"] for configuration in others}
    assert len(looked_at) == COARSE_SIZES and {10, 1000} <= looked_at
    assert len(others) == len(looked_at) * COARSE_RATES


def test_what_matters_is_what_two_runs_differ_by_unless_it_is_asked_for():
    advice = advised(matters=1e-9)
    assert advice.tolerance_is == "runs" and math.isclose(advice.tolerance, math.sqrt(2) * advice.run_sd)
    assert advised(matters=0.03).tolerance_is == "range" and advised(matters=0.03).tolerance == 0.03
    assert advised(tolerance=0.001).tolerance_is == "asked"


def test_the_larger_the_tolerance_the_faster_what_is_recommended():
    seconds = [advised(tolerance=tolerance).recommended.seconds for tolerance in (0.0005, 0.02, 0.2)]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > seconds[-1]
