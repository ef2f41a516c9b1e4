"""The goal `pareto`: accuracy against time as one value whose weights change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from batchopt.goals.pareto import TradeOff, time_share, weighed
from batchopt.search import Scheduler, SearchSpace
from batchopt.search.steps import Trial

SPACE = SearchSpace(batch_size=(16, 1024), learning_rate=(1e-4, 1e-1))
EPOCHS = 16


def seconds_per_epoch(batch_size):
    return 1.0 + 128.0 / batch_size


def final(batch_size, learning_rate):
    """Small batches are the most accurate, large ones the fastest."""
    off = math.log10(learning_rate / 0.01) - 0.5 * math.log10(batch_size / 100)
    return 0.95 - 0.1 * off**2 - 0.01 * max(0.0, math.log2(batch_size / 64)) ** 1.5


def test_a_quarter_of_the_decisions_is_for_accuracy_alone_and_the_others_spread_evenly():
    shares = [time_share(number) for number in range(64)]
    assert shares[0] == 0 and 0.25 <= np.mean(np.array(shares) == 0) <= 0.3
    assert np.histogram([share for share in shares if share > 0], bins=4, range=(0, 1))[0].min() >= 10


def test_time_is_weighed_against_what_accuracies_differ_by_from_batch_size_to_batch_size():
    trials = [Trial(at, size, 0.01, curve={1: (0.9 - 0.1 * at, 1.0)}) for at, size in enumerate((16, 128, 1024))]
    assert [t.curve for t in weighed(trials, SPACE, seconds_per_epoch, 0.0, max_epochs=1)] == [t.curve for t in trials]
    slow, _, fast = (trial.curve[1][0] for trial in weighed(trials, SPACE, seconds_per_epoch, 1.0, max_epochs=1))
    assert fast == pytest.approx(0.7) and slow == pytest.approx(0.9 - 0.2)
    assert weighed(trials, SPACE, lambda batch_size: 1.0, 1.0, max_epochs=1)[0].curve == trials[0].curve


def worst_regret(view, direction="maximize"):
    """Over three weights of time, how far the complete trials are from the best of the space, in accuracy."""
    search = Scheduler(
        SPACE,
        max_epochs=EPOCHS,
        direction=direction,
        view=view,
        max_trials=24,
        seconds_per_epoch=seconds_per_epoch,
        until=False,
    )
    sign = 1.0 if direction == "maximize" else -1.0
    while (step := search.next()) is not None:
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            value = final(step.batch_size, step.learning_rate) - 0.2 * math.exp(-6 * epoch / EPOCHS)
            search.tell(step.trial, epoch, sign * value, seconds_per_epoch(step.batch_size))
    grid = [(size, rate) for size in SPACE.grid_batch_sizes().tolist() for rate in SPACE.grid_learning_rates(65)]
    complete = [(t.batch_size, t.learning_rate) for t in search._trials.values() if t.state == "complete"]

    def best(configurations, weight):
        return max(final(size, rate) - weight * math.log(seconds_per_epoch(size)) for size, rate in configurations)

    return [best(grid, weight) - best(complete, weight) for weight in (0.0, 0.02, 0.05)]


def test_both_ends_of_the_front_are_found_where_a_search_for_accuracy_finds_one():
    accurate, between, fast = worst_regret(TradeOff())
    assert (accurate, between, fast) == tuple(worst_regret(TradeOff(sign=-1.0), "minimize")), (
        "an error is searched as well"
    )
    assert accurate < 0.003 and between < 0.003 and fast < 0.005
