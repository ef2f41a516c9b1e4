"""The scheduler: what it starts, continues and gives up, and when it ends; driven by a formula instead of training."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from batchopt.errors import BatchoptError, InvalidInput
from batchopt.goals.pareto import TradeOff
from batchopt.search import Recommendation, Scheduler, SearchSpace, Step
from batchopt.search.costs import EpochCost
from batchopt.search.decision import RULES, settled
from batchopt.search.scheduler import MAX_PAUSED
from batchopt.search.steps import Trial
from batchopt.search.surrogate.sequence import evenly
from batchopt.search.trials import rungs
from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = SearchSpace(batch_size=(16, 512), learning_rate=(1e-4, 1e-1))
EPOCHS = 52


def final(batch_size, learning_rate):
    """Best, 0.95, at 100 x 0.01; the rate follows the square root of the batch size."""
    off = math.log10(learning_rate / 0.01) - 0.5 * math.log10(batch_size / 100)
    return 0.95 - 0.1 * off**2 - 0.02 * math.log2(batch_size / 100) ** 2


def value(step, epoch, epochs=EPOCHS):
    return final(step.batch_size, step.learning_rate) - 0.2 * math.exp(-8 * epoch / epochs)


def scheduler(space=SPACE, **options):
    return Scheduler(space, **{"max_epochs": EPOCHS, "seed": 0, **options})


def train(search, step, *, sign=1.0, epochs=EPOCHS, curve=value):
    for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
        search.tell(step.trial, epoch=epoch, value=sign * curve(step, epoch, epochs), seconds=1 + 64 / step.batch_size)


def drive(search, steps, **how):
    """Take so many steps, fewer where it ends; the steps taken."""
    taken = []
    while len(taken) < steps and (step := search.next()) is not None:
        train(search, step, **how)
        taken.append(step)
    return taken


def stored(steps, until=None):
    """Trials as a database would hold them after these steps."""
    trials = {}
    for step in steps[:until]:
        trial = trials.setdefault(step.trial, Trial(step.trial, step.batch_size, step.learning_rate))
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            trial.curve[epoch] = (value(step, epoch), 1 + 64 / step.batch_size)
        trial.state = "complete" if step.until_epoch == EPOCHS else "paused"
    return list(trials.values())


def test_the_first_trial_is_well_placed_and_trained_to_its_first_rung():
    step = scheduler().next()
    assert (step.trial, step.from_epoch, step.until_epoch) == (0, 0, 13)
    assert 32 <= step.batch_size <= 128 and 1e-3 <= step.learning_rate <= 1e-2


def test_rungs_are_a_quarter_a_half_and_all_of_the_epochs():
    assert rungs(52) == [13, 26, 52]
    assert rungs(5) == [2, 3, 5]
    assert rungs(2) == [1, 2]
    assert rungs(1) == [1]


def test_a_step_says_why_it_is_taken_and_what_it_costs():
    steps = drive(scheduler(), 8)
    assert steps[0].reason == "first"
    later = steps[-1]
    assert later.reason.split(",")[0] in ("new", "continues") and later.reason.split(", ")[1] in {r.name for r in RULES}
    assert later.expected_seconds > 0 and later.expected_gain >= 0


def test_a_paused_trial_is_continued_where_it_was_left():
    trained = {}
    for step in drive(scheduler(), 20):
        assert step.from_epoch == trained.get(step.trial, 0) and step.until_epoch > step.from_epoch
        trained[step.trial] = step.until_epoch
    assert EPOCHS in trained.values() and 13 in trained.values()


def test_it_finds_the_best_configuration_within_a_few_trials_worth_of_epochs():
    for seed in range(3):
        search = scheduler(seed=seed)
        spent, best = 0, -math.inf
        while best < 0.94:
            step = search.next()
            train(search, step)
            spent += step.until_epoch - step.from_epoch
            best = max(best, final(step.batch_size, step.learning_rate) if step.until_epoch == EPOCHS else -math.inf)
        assert spent < 10 * EPOCHS


def test_the_recommendation_has_been_trained_to_the_end_and_its_interval_holds_the_truth():
    search = scheduler()
    drive(search, 30)
    advice = search.recommend()
    assert isinstance(advice, Recommendation) and advice.complete
    truth = final(advice.batch_size, advice.learning_rate)
    assert advice.low <= advice.mean <= advice.high
    assert advice.low - 0.005 <= truth <= advice.high + 0.005 and truth > 0.94


def test_losses_are_minimised_as_accuracies_are_maximised():
    up, down = scheduler(), scheduler(direction="minimize")
    rising, falling = drive(up, 12), drive(down, 12, sign=-1.0)
    assert [(s.trial, s.batch_size, s.until_epoch) for s in rising] == [
        (s.trial, s.batch_size, s.until_epoch) for s in falling
    ]
    assert down.recommend().mean == pytest.approx(-up.recommend().mean, abs=1e-6)
    assert down.recommend().low <= down.recommend().high


def test_workers_that_ask_at_once_do_not_pile_up():
    search = scheduler()
    drive(search, 6)
    asked = [search.next() for _ in range(4)]
    assert len({step.trial for step in asked}) == 4
    units = SPACE.to_unit([step.batch_size for step in asked], [step.learning_rate for step in asked])
    gaps = np.sqrt(((units[:, None] - units) ** 2).sum(-1))[np.triu_indices(4, 1)]
    assert gaps.min() > 0.03


def test_steps_may_be_told_in_any_order():
    search = scheduler()
    asked = [search.next() for _ in range(4)]
    for step in reversed(asked):
        train(search, step)
    assert isinstance(search.next(), Step)


@pytest.mark.parametrize("until", [1, 4, 9])
def test_a_scheduler_rebuilt_from_stored_trials_decides_as_the_one_that_lived_through_it(until):
    lived = drive(scheduler(), 14)
    rebuilt = scheduler()
    for trial in stored(lived, until):
        rebuilt.add(trial)
    assert drive(rebuilt, 14 - until) == lived[until:]


def test_a_trial_that_was_interrupted_between_rungs_is_taken_up_first():
    search = scheduler()
    search.add(Trial(3, 64, 1e-3, curve=dict.fromkeys(range(1, 6), (0.5, 1.0))))
    step = search.next()
    assert (step.trial, step.from_epoch, step.until_epoch) == (3, 5, 13)


def test_stored_numbers_may_have_gaps_and_a_new_trial_takes_the_number_it_is_given():
    search = scheduler()
    for number in (2, 7):
        search.add(Trial(number, 64, 1e-3 * number, curve={13: (0.5, 1.0)}))
    search.enqueue(128, 0.02)
    step = search.next()
    assert step.trial == 8
    step = search.assign(step, 11)
    train(search, step)
    assert step.trial == 11
    with pytest.raises(InvalidInput, match="trial 8 is not"):
        search.tell(8, 1, 0.5)


def test_what_a_user_queues_is_tried_first_and_in_order():
    search = scheduler()
    search.enqueue(16, 1e-4)
    search.enqueue(512, 1e-1)
    assert [(s.batch_size, s.learning_rate) for s in (search.next(), search.next())] == [(16, 1e-4), (512, 1e-1)]


def test_a_queued_configuration_outside_the_space_is_refused():
    with pytest.raises(InvalidInput, match="outside"):
        scheduler().enqueue(1024, 1e-3)


def test_out_of_memory_rules_out_that_size_and_all_larger_ones():
    search = scheduler()
    for _ in range(30):
        step = search.next()
        if step.batch_size >= 48:
            search.infeasible(step.trial, "memory")
            assert search.max_batch_size < step.batch_size
            largest = search.max_batch_size
        else:
            assert step.batch_size <= largest
            train(search, step)
    assert search.max_batch_size >= 16


def test_where_no_size_fits_it_ends_and_says_so():
    search = scheduler(max_batch_size=8)
    assert search.next() is None
    assert "fits in memory" in search.stop_reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_means_divergence_and_what_is_told_after_it_is_ignored(bad):
    search = scheduler()
    step = search.next()
    search.tell(step.trial, 1, bad, 1.0)
    search.tell(step.trial, 2, 0.9, 1.0)
    assert search.next().trial == 1


def test_where_everything_diverges_rates_go_down():
    search, rates = scheduler(), []
    for _ in range(4):
        step = search.next()
        rates.append(step.learning_rate)
        search.infeasible(step.trial, "diverged")
    assert rates == sorted(rates, reverse=True) and rates[-1] < 2e-4


def test_it_stays_away_from_where_training_diverged():
    search, diverged, steps = scheduler(), 0, 0
    while steps < 30:
        step = search.next()
        steps += 1
        if step.learning_rate > 0.012:
            search.infeasible(step.trial, "diverged")
            diverged += 1
        else:
            train(search, step)
    assert diverged <= 8


def test_one_trial_in_four_is_finished_so_that_late_bloomers_are_seen():
    """Here a low rate looks worst until its last epochs, and is best."""

    def late(step, epoch, epochs):
        share = epoch / epochs
        slow = math.log10(0.1 / step.learning_rate) / 3
        return 0.6 + 0.1 * (1 - slow) * share + 0.3 * slow * share**6

    search = scheduler(until=False)
    steps = drive(search, 40, curve=late)
    complete = [step for step in steps if step.until_epoch == EPOCHS]
    assert len(complete) * 4 >= steps[-1].trial - 4
    assert max(late(step, EPOCHS, EPOCHS) for step in complete) > 0.85


def test_the_budget_of_trials_is_kept_and_the_best_of_them_is_finished():
    search = scheduler(max_trials=5, until=False)
    steps = drive(search, 100)
    assert {step.trial for step in steps} == set(range(5))
    assert search.next() is None and "used up" in search.stop_reason
    assert search.recommend().complete


def test_it_waits_without_a_reason_while_steps_are_under_way():
    search = scheduler(max_trials=2)
    asked = [search.next(), search.next()]
    assert search.next() is None and search.stop_reason == ""
    train(search, asked[0])
    assert search.next() is not None


def test_it_ends_by_itself_when_nothing_promises_more_but_not_early():
    search = scheduler()
    steps = drive(search, 300)
    assert len(steps) < 300 and "no step is likelier" in search.stop_reason
    assert max(step.trial for step in steps) >= 29
    assert max(final(s.batch_size, s.learning_rate) for s in steps if s.until_epoch == EPOCHS) > 0.9495
    advice = search.recommend()
    assert advice.complete and final(advice.batch_size, advice.learning_rate) > 0.95 - advice.tolerance


def test_what_studies_that_end_by_themselves_recommend_is_close_to_the_best():
    """In the mean of four seeds: one study may name what is faster and as good within its own tolerance."""
    worth = []
    for seed in range(4):
        search = scheduler(seed=seed)
        drive(search, 300)
        advice = search.recommend()
        assert search.stop_reason and advice.complete
        worth.append(final(advice.batch_size, advice.learning_rate))
    assert np.mean(worth) > 0.948


@pytest.mark.parametrize("corner", [(16, 1e-4), (16, 0.1), (512, 1e-4), (512, 0.1)])
def test_a_best_that_lies_in_a_corner_alone_is_found(corner):
    """Within a hundredth of the range lies little but the corner itself."""

    def off(step):
        return np.abs(np.subtract(SPACE.to_unit(step.batch_size, step.learning_rate), SPACE.to_unit(*corner)))

    def steep(step, epoch, epochs):
        return 0.9 - 0.3 * off(step).sum() - 0.2 * math.exp(-8 * epoch / epochs)

    search = scheduler(until=False)
    steps = drive(search, 30, curve=steep)
    assert min(off(step).sum() for step in steps if step.until_epoch == EPOCHS) < 0.01


@pytest.mark.parametrize("luck", [0.0, 0.0005])
def test_while_a_lucky_run_leads_the_study_goes_on_beside_the_best_one(luck):
    """Ten runs are as good as the best; it is settled which is the best unless a worse one was observed best."""
    search = scheduler()
    beside = [(100, 0.01 * 10 ** (off / 50)) for off in range(-5, 5)]
    spread = [SPACE.from_unit(point) for point in evenly(50, 2, np.random.default_rng(0))]
    for number, (size, rate) in enumerate([(100, 10**-1.7), *beside, *spread]):
        end = 0.95 + luck if number == 0 and luck else final(size, rate)
        curve = {epoch: (end - 0.2 * math.exp(-8 * epoch / EPOCHS), 1.0) for epoch in range(1, EPOCHS + 1)}
        search.add(Trial(number, size, rate, curve=curve, state="complete"))
    assert settled(search._choices()) == (not luck)
    assert search.recommend().trial in range(1, 11)


def test_a_study_ends_once_no_step_is_worth_its_seconds_and_says_what_the_next_one_would_gain_and_take():
    search = scheduler(until=False, worth=1e-3)
    taken = drive(search, 60)
    said = re.fullmatch(
        r"going on is expected to gain (\S+) in the next (\S+) s, less than it must", search.stop_reason
    )
    assert said and float(said[1]) / float(said[2]) < 1e-3
    content_with_less = scheduler(until=False, worth=1e-8)
    assert drive(content_with_less, len(taken) + 3)[: len(taken)] == taken and not content_with_less.stop_reason


def test_paused_trials_are_given_up_at_the_end_each_told_once():
    search = scheduler(max_trials=6, until=False)
    steps = drive(search, 100)
    finished = {step.trial for step in steps if step.until_epoch == EPOCHS}
    assert set(search.given_up()) == set(range(6)) - finished
    assert search.given_up() == []


def test_while_the_study_goes_on_only_the_least_promising_of_very_many_are_given_up():
    search = scheduler(until=False)
    for number in range(40):
        search.add(Trial(number, 16 + 12 * number, 1e-2, curve=dict.fromkeys(range(1, 14), (0.5 + number / 100, 1.0))))
    given_up = search.given_up()
    assert len(given_up) == 16 and np.mean(given_up) < np.mean(range(40))


def test_an_interrupted_trial_is_not_one_too_many():
    """It was in training when its process ended, and not put aside: no other one has to go for it."""
    search = scheduler(until=False)
    for number in range(MAX_PAUSED):
        search.add(Trial(number, 16 + 12 * number, 1e-2, curve=dict.fromkeys(range(1, 14), (0.5, 1.0))))
    search.add(Trial(MAX_PAUSED, 64, 1e-3, curve=dict.fromkeys(range(1, 6), (0.5, 1.0))))
    assert search.given_up() == []
    train(search, search.next())
    assert len(search.given_up()) == 1


def test_a_ladder_is_kept_to_and_ends_when_every_rung_of_it_was_tried():
    space = SearchSpace(batch_size=[16, 64, 256], learning_rate=(1e-3, 1e-3))
    search = scheduler(space)
    steps = drive(search, 50)
    assert sorted({step.batch_size for step in steps}) == [16, 64, 256]
    assert search.stop_reason == "every configuration of the space was tried"


def test_extra_dimensions_are_searched_and_handed_over():
    extra = {"dropout": FloatDistribution(0.0, 0.5), "kind": CategoricalDistribution(["good", "bad"])}
    space = SearchSpace(batch_size=[32, 64], learning_rate=(1e-3, 1e-2), extra=extra)

    def curve(step, epoch, epochs):
        return 0.9 - 0.3 * (step.extra["kind"] == "bad") - step.extra["dropout"] ** 2 - 0.1 * math.exp(-epoch)

    search = scheduler(space)
    steps = drive(search, 25, curve=curve)
    assert {step.extra["kind"] for step in steps} == {"good", "bad"}
    advice = search.recommend()
    assert advice.extra["kind"] == "good" and advice.extra["dropout"] < 0.15


def test_a_study_of_one_epoch_has_whole_trials_only():
    search = scheduler(max_epochs=1)
    assert all(step.until_epoch == 1 for step in drive(search, 10, epochs=1))


def test_without_pauses_every_trial_is_trained_to_its_end():
    assert all(step.until_epoch == EPOCHS for step in drive(scheduler(pause=False), 6))


def test_before_any_value_nothing_is_recommended():
    with pytest.raises(BatchoptError, match="at least one epoch"):
        scheduler().recommend()


def test_before_a_trial_is_complete_the_recommendation_says_so():
    search = scheduler()
    drive(search, 1)
    assert not search.recommend().complete


@pytest.mark.parametrize(
    "options",
    [{"max_epochs": 0}, {"max_trials": 0}, {"direction": "up"}, {"worth": 0.0}, {"worth": 1.0, "view": TradeOff()}],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(InvalidInput):
        scheduler(**options)


def test_an_epoch_outside_the_trial_is_refused():
    search = scheduler()
    step = search.next()
    with pytest.raises(InvalidInput, match="outside 1 to 52"):
        search.tell(step.trial, 53, 0.5)


def test_the_cost_of_an_epoch_is_learned_from_what_was_timed():
    sizes = [16, 64, 256]
    cost = EpochCost(sizes, [1 + 64 / size for size in sizes])
    assert cost(128) == pytest.approx(1.5, rel=0.15)
    assert cost(32) > cost(64) > cost(512)


def test_a_probed_machine_is_believed():
    assert EpochCost([64], [3.0], probed=lambda size: size / 10)(50) == 5.0
