"""The rules that choose the next step, each by itself, on trials whose final values are a formula's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from batchopt.search import Scheduler, SearchSpace, decision
from batchopt.search.choices import FROM_RATES, INTERIOR_TRIALS
from batchopt.search.decision import RULES, pick
from batchopt.search.steps import Trial
from batchopt.search.surrogate.sequence import evenly
from batchopt.search.trials import rungs

SPACE = SearchSpace(batch_size=(16, 512), learning_rate=(1e-4, 1e-1))
EPOCHS = 52
FIRST_RUNG = rungs(EPOCHS)[0]
BEST = (0.5, 0.6)

BY_NAME = {rule.name: rule.choose for rule in RULES}


def final(unit):
    return 0.95 - 0.3 * ((np.asarray(unit) - BEST) ** 2).sum()


def trial(number, unit, epochs, end=None):
    size, rate = SPACE.from_unit(unit)
    end = final(unit) if end is None else end
    curve = {epoch: (end - 0.2 * math.exp(-8 * epoch / EPOCHS), 1.0) for epoch in range(1, epochs + 1)}
    return Trial(number, size, rate, curve=curve, state="complete" if epochs == EPOCHS else "paused")


def seen(*trials, new=True):
    """What the evidence says of these trials, and the new configurations."""
    search = Scheduler(SPACE, max_epochs=EPOCHS)
    for one in trials:
        search.add(one)
    choices = search._choices()
    return choices, choices.starting(np.random.default_rng(0), max_batch_size=None) if new else []


def study(complete, paused, seed=0):
    """So many trials, spread out, of both kinds."""
    units = evenly(complete + paused, 2, np.random.default_rng(seed))
    return [trial(number, unit, EPOCHS if number < complete else FIRST_RUNG) for number, unit in enumerate(units)]


def unit(option):
    return SPACE.to_unit(option.params["batch_size"], option.params["learning_rate"])


def test_every_rule_has_a_name_of_its_own_and_says_what_it_guards_against():
    assert len(BY_NAME) == len(RULES)
    assert all(rule.name and rule.against for rule in RULES)


def test_the_first_rule_that_has_an_answer_decides():
    choices, new = seen(*study(1, 8))
    option, rule = pick(choices, new)
    before = RULES[: RULES.index(rule)]
    assert rule.choose(choices, new) == option and not any(earlier.choose(choices, new) for earlier in before)


def test_where_nothing_is_left_to_do_no_rule_has_an_answer():
    choices, _ = seen(trial(0, BEST, EPOCHS), new=False)
    assert pick(choices, []) is None


def test_once_nothing_better_is_in_sight_steps_go_where_the_best_is_expected(monkeypatch):
    settle = BY_NAME["to tell the best from the lucky"]
    beside = [trial(number, np.add(BEST, (number - 2) / 50), EPOCHS) for number in range(5)]
    lucky = trial(5, (0.9, 0.6), EPOCHS, end=0.951)
    spread = [trial(6 + n, u, EPOCHS) for n, u in enumerate(evenly(30, 2, np.random.default_rng(0)))]
    monkeypatch.setattr(decision, "NO_CHANCE", 0.0)
    assert settle(*seen(*beside, lucky, *spread)) is None
    monkeypatch.setattr(decision, "NO_CHANCE", 1.0)
    assert np.abs(unit(settle(*seen(*beside, lucky, *spread))) - BEST).max() < 0.1
    assert settle(*seen(*beside, lucky)) is None


def test_the_first_trial_is_trained_to_its_end_before_any_other_is_started_for_good(monkeypatch):
    monkeypatch.setattr(decision, "FINISH_FROM", 3)
    finish = BY_NAME["the first to its end"]
    paused = study(0, 3)
    assert finish(*seen(*paused)).trial is not None
    assert finish(*seen(*paused[:-1])) is None
    assert finish(*seen(trial(9, BEST, EPOCHS), *paused)) is None


def test_the_oddest_is_finished_wherever_it_lies():
    finish = BY_NAME["the oddest to its end"]
    complete = [trial(number, (0.1, 0.1 + number / 20), EPOCHS) for number in range(decision.ODD_ONE_IN - 2)]
    count = decision.FINISH_ONE_IN * (decision.ODD_ONE_IN - 1)
    paused = [trial(number, (0.2, 0.3), FIRST_RUNG) for number in range(2, count - 1)]
    odd = trial(count - 1, (1.0, 1.0), FIRST_RUNG)
    assert finish(*seen(*complete, *paused, odd)).trial.trial == odd.trial
    assert finish(*seen(*complete, *paused)) is None


def test_one_in_a_few_is_finished_whatever_it_promises():
    finish = BY_NAME["one in a few to its end"]
    hopeless = [trial(number, (0.9, 0.05 * number), FIRST_RUNG, end=0.3) for number in range(1, 12)]
    best = trial(0, BEST, EPOCHS)
    assert finish(*seen(best, *hopeless[: 2 * decision.FINISH_ONE_IN - 1])).trial is not None
    assert finish(*seen(best, *hopeless[: 2 * decision.FINISH_ONE_IN - 2])) is None


def test_one_new_configuration_in_a_few_goes_where_nothing_was_tried():
    explore = BY_NAME["where nothing was tried"]
    trials = [trial(number, (0.5, 0.3 + 0.05 * number), EPOCHS) for number in range(decision.EXPLORE_EVERY)]
    option = explore(*seen(*trials[:-1]))
    assert min(np.linalg.norm(unit(option) - SPACE.to_unit(t.batch_size, t.learning_rate)) for t in trials) > 0.4
    assert explore(*seen(*trials)) is None


def test_one_new_configuration_in_a_few_is_the_one_that_is_expected_best():
    exploit = BY_NAME["expected best"]
    trials = study(10, 0)
    choices, new = seen(*trials)
    assert exploit(choices, new) == choices.expected_best(new)
    assert np.abs(unit(exploit(choices, new)) - BEST).max() < 0.2
    assert exploit(*seen(*trials[:9])) is None


def test_else_the_step_that_promises_most_for_its_seconds_is_taken():
    promising = BY_NAME["promises most"]
    choices, new = seen(*study(4, 3), trial(7, BEST, FIRST_RUNG))
    assert promising(choices, new).worth == max(option.worth for option in (*choices.paused, *new))
    choices, new = seen(*study(4, 0), trial(4, BEST, FIRST_RUNG, end=0.99))
    assert promising(choices, new).trial.trial == 4


def test_the_first_new_configurations_keep_away_from_both_ends_of_the_rates_but_take_any_batch_size():
    _, new = seen(trial(0, (0.5, 0.5), EPOCHS))
    units = np.array([unit(option) for option in new])
    assert units[:, 1].min() >= FROM_RATES - 1e-9 and units[:, 1].max() <= 1 - FROM_RATES + 1e-9
    assert units[:, 0].min() == 0 and units[:, 0].max() == 1
    _, new = seen(*study(INTERIOR_TRIALS, 0))
    units = np.array([unit(option) for option in new])
    assert units[:, 1].min() == 0 and units[:, 1].max() == 1


@pytest.mark.parametrize("taken", [2, 9])
def test_a_step_says_which_rule_chose_it(taken):
    search = Scheduler(SPACE, max_epochs=EPOCHS)
    for number in range(taken):
        step = search.next()
        whole = trial(number, SPACE.to_unit(step.batch_size, step.learning_rate), EPOCHS)
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            search.tell(step.trial, epoch, whole.curve[epoch][0])
    trials, choices = search._trials.in_order(), search._choices()
    rng = np.random.default_rng([0, len(trials), sum(one.epochs for one in trials)])
    _, expected = pick(choices, choices.starting(rng, max_batch_size=None))
    assert search.next().reason.endswith(f", {expected.name}")
