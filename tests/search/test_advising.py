"""What the evidence of a few real trials comes to."""

from __future__ import annotations

import math

from batchopt.question.space import SearchSpace
from batchopt.search.advising import advise
from batchopt.search.steps import Trial

SPACE = SearchSpace([8, 16, 32, 64, 128, 256, 512, 1024], (1e-4, 1e-1))

TRAINED = (
    (128, 0.00316, 0.9171), (512, 0.000229, 0.6501), (512, 0.0399, 0.8740), (32, 0.00127, 0.9220),
    (8, 0.0803, 0.2605), (64, 0.000683, 0.9034), (8, 0.000131, 0.8919), (64, 0.00205, 0.9146),
)  # fmt: skip
"""Eight runs of three epochs of the reference model on 5,000 images, all to the end: batch size, rate, accuracy."""


def advised(**options):
    trials = [
        Trial(at, size, rate, {}, {3: (value, 30.0 / size)}, state="complete")
        for at, (size, rate, value) in enumerate(TRAINED)
    ]
    return advise(trials, SPACE, max_epochs=3, sign=1.0, seconds_per_epoch=lambda size: 30.0 / size, **options)


def test_few_trials_that_lie_far_apart_are_not_taken_for_runs_that_differ():
    """Each is far from what the other seven say of it, by how wrong that is and not by how lucky it was."""
    advice = advised()
    assert advice.run_sd < 0.01 and advice.tolerance < 0.02
    near = [advice.at(size) for size in (32, 64, 128)]
    assert all(row.high - row.low < 0.05 for row in near) and all(row.high < 0.94 for row in near)


def test_what_matters_is_what_two_runs_differ_by_unless_it_is_asked_for():
    advice = advised(matters=1e-9)
    assert advice.tolerance_is == "runs" and math.isclose(advice.tolerance, math.sqrt(2) * advice.run_sd)
    assert advised(matters=0.03).tolerance_is == "range" and advised(matters=0.03).tolerance == 0.03
    assert advised(tolerance=0.001).tolerance_is == "asked"


def test_the_larger_the_tolerance_the_faster_what_is_recommended():
    seconds = [advised(tolerance=tolerance).recommended.seconds for tolerance in (0.0005, 0.02, 0.2)]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > seconds[-1]
