"""From trials to advice: what is recommended, and what each batch size is worth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from batchopt.question.goal import PREFERENCES, Goal
from batchopt.question.metric import Metric
from batchopt.question.space import SearchSpace
from batchopt.report.answer.batch_sizes import by_batch_size, count_states, score
from batchopt.report.answer.recommendation import Recommendation, Report, advise_from, recommend
from batchopt.report.answer.targets import best_by_batch_size
from batchopt.search.advice import AgainstDefault, Estimate
from batchopt.search.preference import preferred
from batchopt.search.telling_apart import runs_to_tell
from batchopt.store.history import TrialRecord


def trial(
    number: int,
    batch_size: int | None = 32,
    accuracies: tuple[float | None, ...] = (0.9,),
    *,
    state: str = "complete",
    learning_rate: float | None = 0.01,
    seconds: float = 2.0,
    speed: float = 500.0,
    note: str = "",
) -> TrialRecord:
    same = {"train_loss": 0.25, "validation_loss": 0.25, "train_seconds": seconds, "examples_per_second": speed}
    epochs = [{"epoch": at, "value": value, **same} for at, value in enumerate(accuracies, start=1)]
    value = accuracies[-1] if state == "complete" else None
    return TrialRecord(number, 100 + number, state, batch_size, learning_rate, {}, value, epochs, note)


METRIC = Metric()
SPACE = SearchSpace([8, 16, 32, 64, 128, 256], (1e-3, 1e-1))


def advised(trials: list[TrialRecord], max_epochs: int = 1, **options: float) -> Recommendation | None:
    return recommend(trials, advise_from(trials, SPACE, METRIC, max_epochs=max_epochs, **options), Goal(), METRIC)


def test_the_best_complete_trial_is_recommended_with_what_it_reached() -> None:
    trials = [trial(0, 16, (0.5, 0.7)), trial(1, 64, (0.6, 0.9), learning_rate=0.03), trial(2, 128, (0.7, 0.8))]
    advice = advised(trials, max_epochs=2)
    assert advice is not None
    assert (advice.trial, advice.batch_size, advice.learning_rate) == (1, 64, 0.03)
    assert (advice.value, advice.train_seconds) == (0.9, 4.0)
    assert advice.low < advice.expected < advice.high


def test_a_lucky_run_among_many_is_not_what_is_recommended() -> None:
    """The winner's curse: one run at 8 is far above its equals, those at 64 are good every time."""
    rng = np.random.default_rng(0)
    values = [(8, 0.90 + 0.004 * rng.standard_normal()) for _ in range(8)]
    values += [(64, 0.91 + 0.004 * rng.standard_normal()) for _ in range(8)]
    values[3] = (8, max(value for _, value in values) + 0.001)
    trials = [
        trial(number, size, (value,), learning_rate=0.01 * 1.01**number) for number, (size, value) in enumerate(values)
    ]
    advice = advised(trials)
    assert advice is not None
    assert advice.batch_size == 64
    assert advice.expected < values[3][1]


def test_of_batch_sizes_that_are_as_good_the_fastest_is_named() -> None:
    sizes = [8, 16, 32, 64, 128, 256]
    trials = [
        trial(number, size, (0.9 - 0.05 * (size == 256) - 1e-4 * (number % 6),), seconds=100 / size)
        for number, size in enumerate(sizes * 2)
    ]
    advice = advise_from(trials, SPACE, METRIC, max_epochs=1, tolerance=0.01)
    assert advice is not None
    assert 256 not in advice.as_good
    assert advice.as_good[-1] == advice.recommended.batch_size == 128
    assert advice.recommended.seconds == pytest.approx(100 / 128)
    assert (advice.tolerance, advice.tolerance_is) == (0.01, "asked")


def test_what_is_preferred_is_recommended_and_never_what_another_one_beats_in_both() -> None:
    """Smaller batches take longer and are a little better, but for 8, which takes longest and is worse than 16."""
    values = {8: 0.9, 16: 0.92, 32: 0.918, 64: 0.91, 128: 0.9, 256: 0.8}
    trials = [
        trial(number, size, (values[size] + 1e-4 * (number % 5),), seconds=100 / size)
        for number, size in enumerate([*values] * 3)
    ]
    # At another rate each may be better, and nobody knows.
    one_rate = SearchSpace([*values], (0.01, 0.01))
    sizes = {}
    for prefer in PREFERENCES:
        advice = advise_from(trials, one_rate, METRIC, max_epochs=1, tolerance=0.005, prefer=prefer)
        assert advice is not None and advice.prefer == prefer
        ours = sizes[prefer] = advice.recommended
        beaten = [row for row in advice.by_batch_size if row.mean > ours.mean and row.seconds < ours.seconds]
        assert beaten == []
    assert sizes["best"].batch_size == 16
    assert sizes["balanced"].batch_size == 32
    assert sizes["fastest"].seconds <= sizes["balanced"].seconds
    assert sizes["balanced"].chance_within >= 0.8 > 0.5


def estimate(batch_size: int, mean: float, seconds: float, *, within: float, trial: int) -> Estimate:
    return Estimate(
        *(batch_size, 0.01, {}, mean, mean - 0.01, mean + 0.01),
        standard_error=0.005,
        chance_within=within,
        chance_better=0.5,
        seconds=seconds,
        epochs=5.0,
        runs=1,
        trial=trial,
    )


def test_where_nothing_is_sure_the_likeliest_that_was_trained_is_recommended_whatever_is_guessed() -> None:
    """16 was tried at another rate than it is guessed best at: it beats 8 in both, but nobody has seen that."""
    rows = [
        estimate(8, 0.9753, 10.1, within=0.035, trial=3),
        estimate(16, 0.9767, 5.2, within=0.044, trial=-1),
        estimate(256, 0.9726, 2.4, within=0.0005, trial=1),
    ]
    assert [preferred(rows, prefer, 1.0).batch_size for prefer in ("balanced", "fastest")] == [8, 8]
    assert preferred(rows[1:2], "balanced", 1.0).batch_size == 16


def test_at_a_metrics_ceiling_what_numbers_are_rounded_by_is_no_reason_for_a_slower_batch_size() -> None:
    rng = np.random.default_rng(0)
    trials = [
        trial(number, size, (0.88 if number == 5 else 1.0 - 1e-8 * float(rng.random()),), seconds=100 / size)
        for number, size in enumerate([16, 32, 64, 128] * 4)
    ]
    advice = advise_from(trials, SPACE, Metric("auc", "maximize"), max_epochs=1)
    assert advice is not None
    assert advice.tolerance >= 1e-7
    assert advice.recommended.batch_size == 128


def test_the_gain_over_the_default_is_that_of_two_runs_that_were_trained() -> None:
    """32 at 0.001 is 0.05 behind; the interval holds it, and it is better for sure."""
    trials = [trial(number, 32, (0.85 + 1e-4 * number,), learning_rate=0.001) for number in range(4)]
    trials += [trial(4 + number, 128, (0.9 + 1e-4 * number,), learning_rate=0.01) for number in range(4)]
    advice = advise_from(trials, SPACE, METRIC, max_epochs=1)
    assert advice is not None and advice.against_default is not None
    against = advice.against_default
    assert advice.recommended.batch_size == 128
    assert against.chance > 0.95
    assert against.low < 0.05 < against.high


def test_a_default_that_nobody_trained_may_have_luck_of_its_own_and_fewer_runs_leave_more_of_it() -> None:
    """Neighbours tell of it, and by how much runs beside each other differ it may differ from them too."""

    def against(spread: float, runs_of_default: int) -> AgainstDefault:
        rng = np.random.default_rng(5)
        rates = [0.0005, 0.0007, 0.0014, 0.002] * 4 + [0.001] * runs_of_default
        trials = [
            trial(number, size, (value + spread * rng.standard_normal(),), learning_rate=rate)
            for size, value in ((32, 0.9), (64, 0.91))
            for number, rate in enumerate(rates, start=len(rates) * (size == 64))
        ]
        advice = advise_from(trials, SearchSpace([32, 64], (1e-4, 1e-2)), METRIC, max_epochs=1, prefer="best")
        assert advice is not None and advice.against_default is not None
        return advice.against_default

    alike, untried, trained = against(1e-4, 0), against(0.006, 0), against(0.006, 8)
    assert alike.chance > 0.99
    assert 0.5 < untried.chance < 0.98 < trained.chance
    assert untried.high - untried.low > 2 * 0.006
    assert trained.high - trained.low < 0.85 * (untried.high - untried.low)


def test_the_default_against_itself_is_as_good() -> None:
    trials = [trial(number, 32, (0.9 + 1e-3 * number,), learning_rate=0.001) for number in range(4)]
    advice = advise_from(trials, SearchSpace([32], (1e-3, 1e-3)), METRIC, max_epochs=1)
    assert advice is not None and advice.against_default is not None
    against = advice.against_default
    assert (against.low, against.high) == (0.0, 0.0)
    assert against.chance == pytest.approx(0.5)


def test_runs_that_differ_near_the_best_are_what_the_tolerance_is_made_of() -> None:
    """Runs differ by 0.004 there; that is found although values differ by orders of magnitude further down."""
    rng = np.random.default_rng(3)
    values = [(size, 0.97 - 0.001 * abs(math.log2(size / 32)) ** 3) for size in (8, 16, 32, 64, 128, 256)] * 4
    trials = [
        trial(number, size, (value + 0.004 * rng.standard_normal(),), learning_rate=0.01 * 1.02**number)
        for number, (size, value) in enumerate(values)
    ]
    advice = advise_from(trials, SPACE, METRIC, max_epochs=1)
    assert advice is not None
    assert 0.002 < advice.run_sd < 0.008


def test_what_the_data_cannot_tell_apart_is_said_with_what_would() -> None:
    rng = np.random.default_rng(1)
    trials = [
        trial(number, (32, 64)[number % 2], (0.9 + 0.01 * rng.standard_normal(),), learning_rate=0.01 + 1e-4 * number)
        for number in range(8)
    ]
    advice = advise_from(trials, SPACE, METRIC, max_epochs=1)
    assert advice is not None
    other = {32: 64, 64: 32}[advice.recommended.batch_size]
    assert other in {row.batch_size for row in advice.undecided}


def runs_that_differ(gap: float, seed: int, runs: int, *, more: int = 0) -> list[TrialRecord]:
    """So many runs each at 32 and at 64, which is better by a gap; runs differ by 0.005."""
    rng, later = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    trials = []
    for number in range(2 * (runs + more)):
        size, noise = (32, 64)[number % 2], (rng if number < 2 * runs else later).standard_normal()
        rate = 0.01 * 1.001 ** (number // 2)
        trials.append(trial(number, size, (0.9 + gap * (size == 64) + 0.005 * noise,), learning_rate=rate))
    return trials


TWO = SearchSpace([32, 64], (1e-3, 1e-1))


def test_as_many_more_runs_as_are_asked_for_mostly_tell_two_batch_sizes_apart() -> None:
    told, asked = 0, 0
    for seed in range(30):
        advice = advise_from(runs_that_differ(0.005, seed, 3), TWO, METRIC, max_epochs=1)
        assert advice is not None
        for row in advice.undecided:
            if row.runs is not None:
                asked += 1
                after = advise_from(runs_that_differ(0.005, seed, 3, more=row.runs), TWO, METRIC, max_epochs=1)
                told += after is not None and after.undecided == []
    assert asked >= 12
    assert told >= 0.75 * asked


@pytest.mark.parametrize(("own", "runs"), [(0.0, (1, 1)), (0.1, (1, 1)), (0.2, (6, 2))])
@pytest.mark.parametrize(("gap", "error"), [(0.01, 0.005), (0.004, 0.01), (0.02, 0.02)])
def test_as_many_more_runs_as_are_asked_for_are_the_fewest_that_tell_four_gaps_in_five(
    gap: float, error: float, own: float, runs: tuple[int, int]
) -> None:
    """The true gap is drawn from what is known of it, and so are the runs; both decide on all of it.

    What each configuration may have for itself is doubted, and is no part of the gap that runs show.
    """
    run_sd, draws, known = 0.02, np.random.default_rng(0), 2 * error**2

    def doubt(more: int) -> float:
        return own * run_sd**2 * sum(1 / (there + more) for there in runs)

    asked = runs_to_tell(gap, math.sqrt(known + doubt(0)), run_sd, own=own, runs=runs)
    assert asked is not None

    def told(more: int) -> float:
        seen = 2 * run_sd**2 / more
        truth = gap + math.sqrt(known) * draws.standard_normal(200_000)
        found = truth + math.sqrt(seen) * draws.standard_normal(200_000)
        left = 1 / (1 / known + 1 / seen)
        return float(np.mean(np.abs(left * (gap / known + found / seen)) > 1.645 * math.sqrt(left + doubt(more))))

    assert told(asked) > 0.795
    assert asked == 1 or told(asked - 1) < 0.805


def test_where_nothing_is_to_be_told_apart_no_runs_are_asked_for() -> None:
    assert runs_to_tell(0.0001, 0.0007, 0.02) is None
    assert runs_to_tell(0.01, 0.0, 0.02) is None


@pytest.mark.parametrize("state", ["pruned", "running", "fail"])
def test_where_no_trial_is_complete_nothing_is_recommended_and_what_never_was_has_no_trial(state: str) -> None:
    advice = advised([trial(0, 16, (0.5,)), trial(1, 64, (0.99,), state=state)])
    assert advice is not None
    assert (advice.batch_size, advice.trial, advice.value) in ((64, None, None), (16, 0, 0.5))
    assert advised([trial(1, 64, (0.99,), state=state)]) is None


def test_nothing_is_recommended_without_trials() -> None:
    assert advised([]) is None
    assert advised([trial(0, None, (), state="waiting", learning_rate=None)]) is None


def test_a_trial_with_an_accuracy_of_zero_is_still_complete() -> None:
    advice = advised([trial(0, 16, (0.0,))])
    assert advice is not None
    assert advice.value == 0.0


@pytest.mark.parametrize(
    ("metric", "values", "least", "most"),
    [
        (Metric(), (0.99, 1.0, 0.7), 0.0, 1.0),
        (Metric("score"), (0.99, 1.0, 0.7), -math.inf, math.inf),
        (Metric("mae", "minimize"), (0.001, 0.002, 0.7), 0.0, math.inf),
        (Metric("loss", "minimize"), (-0.001, 0.002, 0.7), -math.inf, math.inf),
    ],
)
def test_no_value_that_cannot_be_is_expected(
    metric: Metric, values: tuple[float, ...], least: float, most: float
) -> None:
    trials = [trial(at, size, (0.5, last)) for at, (size, last) in enumerate(zip((16, 32, 64), values, strict=True))]
    advice = advise_from(trials, SPACE, metric, max_epochs=2)
    assert advice is not None
    rows = advice.by_batch_size
    assert sum(row is advice.recommended for row in rows) == 1
    assert all(least <= row.low <= row.mean <= row.high <= most for row in rows)
    # A posterior goes beyond what was seen, as far as it may.
    lowest, highest = min(row.low for row in rows), max(row.high for row in rows)
    assert lowest == least if math.isfinite(least) else lowest < 0
    assert highest == most if math.isfinite(most) else highest > 1


def test_each_batch_size_that_was_trained_has_one_row_in_ascending_order() -> None:
    rows = by_batch_size([trial(0, 64), trial(1, 8), trial(2, 64), trial(3, 256, (), state="running")], METRIC)
    assert [(row.batch_size, row.trials) for row in rows] == [(8, 1), (64, 2)]


def test_a_row_shows_the_trial_trained_furthest_and_of_those_the_most_accurate() -> None:
    """A trial that was stopped early is not compared with whole ones."""
    (row,) = by_batch_size(
        metric=METRIC,
        trials=[
            trial(0, 32, (0.95,), state="pruned", learning_rate=0.1),
            trial(1, 32, (0.7, 0.8), learning_rate=0.001),
            trial(2, 32, (0.7, 0.9), learning_rate=0.01),
        ],
    )
    assert (row.learning_rate, row.value, row.epochs, row.trials) == (0.01, 0.9, 2, 3)


def test_a_row_shows_the_best_epoch_where_that_is_what_a_trial_counts_by() -> None:
    trials = [trial(0, 32, (0.7, 0.8), learning_rate=0.001), trial(1, 32, (0.9, 0.6), learning_rate=0.01)]
    (last,), (best,) = by_batch_size(trials, METRIC), by_batch_size(trials, METRIC, "best")
    assert (last.learning_rate, last.value) == (0.001, 0.8)
    assert (best.learning_rate, best.value, best.epochs) == (0.01, 0.9, 2)


def test_a_row_has_the_median_speed_of_all_epochs_of_its_batch_size() -> None:
    trials = [trial(0, seconds=1.0, speed=600), trial(1, seconds=9.0, speed=100), trial(2, seconds=2.0, speed=500)]
    (row,) = by_batch_size(trials, METRIC)
    assert (row.seconds_per_epoch, row.examples_per_second) == (2.0, 500)


def test_a_batch_size_whose_trials_all_diverged_has_a_row_that_json_can_hold() -> None:
    """A metric that is not a number is kept as NULL; what is said of it must still be JSON, which has no infinity."""
    rows = by_batch_size([trial(0, 32, (None,), state="pruned", note="diverged")], METRIC)
    report = Report("mnist", {}, METRIC, "sqlite:///studies.db", {}, {"pruned": 1}, None, None, rows, 0.0)
    json.dumps(report.describe(), allow_nan=False)


def test_the_accuracy_of_a_trial_is_its_last_and_least_of_all_where_there_is_none() -> None:
    assert score(trial(0, accuracies=(0.5, 0.75)), METRIC) == 0.75
    assert score(trial(0, accuracies=(0.5, None)), METRIC) == float("-inf")
    assert score(trial(0, accuracies=(), state="running"), METRIC) == float("-inf")


def test_states_are_counted_and_those_that_none_is_in_left_out() -> None:
    assert count_states([trial(0), trial(1), trial(2, state="pruned")]) == {"complete": 2, "pruned": 1}
    assert count_states([]) == {}


def test_a_metric_below_zero_is_no_divergence() -> None:
    """R2 after too few epochs; the row of a batch size is its best trial's all the same."""
    rows = by_batch_size(
        [trial(0, 32, (-0.5, -0.2)), trial(1, 32, (-0.9,), state="pruned"), trial(2, 64, (-3.0,))], METRIC
    )
    assert [row.value for row in rows] == [-0.2, -3.0]
    assert [row.validation_loss for row in rows] == [0.25, 0.25]
    assert best_by_batch_size([trial(0, 32, (-0.5, -0.2)), trial(2, 64, (-3.0, -2.0))], METRIC) == {32: -0.2, 64: -2.0}


def test_a_metric_that_never_varies_gives_no_advice() -> None:
    trials = [trial(0, 16, (0.0, 0.0)), trial(1, 64, (0.0, 0.0)), trial(2, 128, (0.0,), state="pruned")]
    assert advised(trials, max_epochs=2) is None
