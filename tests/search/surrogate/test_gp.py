"""The surrogate: what it knows where it looked, what it doubts where it did not, and that nothing breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from batchopt.search.surrogate.covariance import Covariance
from batchopt.search.surrogate.curves import Curves
from batchopt.search.surrogate.gp import Surrogate, maturity
from batchopt.search.surrogate.warp import log_slope, unwarp, warp

PRIOR = Covariance((0, 1, 0.5))
FITTED = Covariance((0, 1, 0.5), fitted=True)


def curves(x, value, *, fidelity=None, trial=None, pending=(), censored=()):
    x, value = np.atleast_2d(np.asarray(x, dtype=float)), np.asarray(value, dtype=float)
    return Curves(
        x=x,
        trial=np.arange(len(value)) if trial is None else np.asarray(trial),
        fidelity=np.ones(len(value)) if fidelity is None else np.asarray(fidelity, dtype=float),
        value=value,
        censored=np.isin(np.arange(len(value)), censored),
        pending_trial=np.array([row for row, _ in pending], dtype=np.int64),
        pending_fidelity=np.array([share for _, share in pending], dtype=float),
    )


def ridge(x):
    return 0.95 - (x[:, 1] - 0.6) ** 2 - 0.2 * (x[:, 0] - 0.4) ** 2


def spread_points(count, seed=0):
    return np.random.default_rng(seed).random((count, 2))


def median_and_width(surrogate, x):
    low, middle, high = surrogate.quantiles(*surrogate.at_end(np.atleast_2d(x)), [0.05, 0.5, 0.95])
    return middle, high - low


def test_the_warp_keeps_the_order_and_is_undone_exactly():
    values, scale = np.linspace(-50, 1, 40), np.array([[0.1], [2.0]])
    warped = warp(values, 0.5, scale)
    assert (np.diff(warped, axis=1) > 0).all()
    np.testing.assert_allclose(unwarp(warped, 0.5, scale), np.broadcast_to(values, (2, 40)), rtol=1e-9)


def test_the_warps_slope_is_its_derivative():
    values, scale, step = np.array([-3.0, 0.2, 0.9]), np.array([[0.3]]), 1e-6
    numeric = (warp(values + step, 0.5, scale) - warp(values - step, 0.5, scale)) / (2 * step)
    np.testing.assert_allclose(np.exp(log_slope(values, 0.5, scale)), numeric, rtol=1e-5)


def test_maturity_is_nothing_at_the_end_and_one_at_a_quarter():
    np.testing.assert_allclose(maturity([1.0, 0.5, 0.25, 1e-6]), [0.0, 0.5, 1.0, 2.0])


def test_it_predicts_a_smooth_surface_between_its_points():
    x, new = spread_points(25), spread_points(40, seed=1) * 0.8 + 0.1
    middle, _ = median_and_width(Surrogate(curves(x, ridge(x)), prior=PRIOR), new)
    assert np.abs(middle - ridge(new)).mean() < 0.02


def test_its_90_percent_intervals_hold_about_90_percent():
    x, new = spread_points(14, seed=2), spread_points(200, seed=3)
    surrogate = Surrogate(curves(x, ridge(x)), prior=PRIOR)
    low, high = surrogate.quantiles(*surrogate.at_end(new), [0.05, 0.95])
    assert np.mean((low <= ridge(new)) & (ridge(new) <= high)) > 0.8


def test_before_more_is_known_smaller_batches_are_expected_better_and_no_rate_is():
    """One trial in the middle; to both sides of it along the batch size, then along the rate."""
    surrogate = Surrogate(curves([[0.5, 0.5]], [0.8]), prior=FITTED)
    middle, _ = median_and_width(surrogate, [[0.2, 0.5], [0.8, 0.5], [0.5, 0.2], [0.5, 0.8]])
    assert middle[0] > 0.8 > middle[1] and middle[2] == pytest.approx(middle[3], abs=1e-6)


@pytest.mark.parametrize("prior", [PRIOR, Covariance(fitted=True)])
def test_where_nothing_is_fitted_no_side_is_expected_better(prior):
    middle, _ = median_and_width(Surrogate(curves([[0.5, 0.5]], [0.8]), prior=prior), [[0.2, 0.5], [0.8, 0.5]])
    assert middle[0] == pytest.approx(middle[1], abs=1e-6)


def test_what_is_seen_outweighs_the_expectation_that_smaller_batches_are_better():
    x = spread_points(12)
    middle, _ = median_and_width(Surrogate(curves(x, 0.5 + 0.3 * x[:, 0]), prior=FITTED), [[0.1, 0.5], [0.9, 0.5]])
    assert middle[1] - middle[0] == pytest.approx(0.24, abs=0.02)


def test_values_are_expected_to_bend_faster_along_the_rate_than_along_the_batch_size():
    """One trial in the middle; as far off along the rate, its value says less."""
    surrogate = Surrogate(curves([[0.5, 0.5], [0.5, 0.52]], [0.8, 0.81]), prior=FITTED)
    _, width = median_and_width(surrogate, [[0.3, 0.5], [0.5, 0.3]])
    assert width[1] > 1.3 * width[0]


def test_it_doubts_more_where_nothing_was_tried():
    x = np.array([[0.2, 0.2], [0.25, 0.3], [0.3, 0.2]])
    _, width = median_and_width(Surrogate(curves(x, [0.8, 0.82, 0.81])), [[0.25, 0.22], [0.95, 0.95]])
    assert width[1] > 3 * width[0]


def test_one_diverged_trial_does_not_flatten_the_rest():
    """With a value ten thousand times worse among them, the order of the good ones is still seen."""
    x = spread_points(20)
    value = ridge(x)
    value[0] = -1e4
    new = np.array([[0.4, 0.6], [0.4, 0.95]])
    middle, _ = median_and_width(Surrogate(curves(x, value)), new)
    assert middle[0] > middle[1] + 0.03


def test_curves_of_neighbours_tell_how_much_a_paused_trial_will_still_gain():
    """Three runs gained 0.2 after a quarter of their epochs; a fourth, paused there, is expected to."""
    x = np.array([[0.4, 0.5], [0.5, 0.5], [0.6, 0.5], [0.5, 0.6]])
    trial, fidelity = [0, 0, 1, 1, 2, 2, 3], [0.25, 1, 0.25, 1, 0.25, 1, 0.25]
    value = [0.60, 0.80, 0.61, 0.81, 0.59, 0.79, 0.62]
    surrogate = Surrogate(curves(x, value, trial=trial, fidelity=fidelity))
    middle = surrogate.quantiles(*surrogate.of_trials([3]), [0.5])[0, 0]
    assert middle == pytest.approx(0.82, abs=0.03)


def test_a_finished_trial_is_known_better_than_a_paused_one():
    x = np.array([[0.2, 0.5], [0.8, 0.5]])
    surrogate = Surrogate(curves(x, [0.7, 0.8, 0.75], trial=[0, 0, 1], fidelity=[0.25, 1.0, 0.25]))
    low, high = surrogate.quantiles(*surrogate.of_trials([0, 1]), [0.05, 0.95])
    assert high[1] - low[1] > 1.5 * (high[0] - low[0])


def test_a_censored_point_is_a_bound_and_not_a_value():
    """Known to be at most 0.9 among neighbours near 0.5, it says little; taken for exact, it would draw a peak."""
    x = np.array([[0.3, 0.5], [0.4, 0.4], [0.6, 0.6], [0.7, 0.5], [0.5, 0.5]])
    value = [0.50, 0.52, 0.51, 0.49, 0.90]
    exact, _ = median_and_width(Surrogate(curves(x, value)), [[0.5, 0.5]])
    bound, _ = median_and_width(Surrogate(curves(x, value, censored=[4])), [[0.5, 0.5]])
    assert exact[0] > 0.75 and bound[0] < 0.65


def test_a_low_bound_draws_the_surface_down():
    x = np.array([[0.3, 0.5], [0.4, 0.4], [0.6, 0.6], [0.7, 0.5], [0.5, 0.5]])
    surrogate = Surrogate(curves(x, [0.50, 0.52, 0.51, 0.49, 0.2], censored=[4]))
    middle, _ = median_and_width(surrogate, [[0.5, 0.5]])
    assert middle[0] < 0.35


def test_a_pending_step_lowers_the_doubt_and_moves_no_mean():
    x = np.vstack([spread_points(6), [[0.9, 0.9]]])
    value = ridge(x[:6])
    near = np.array([[0.9, 0.9]])
    mean, sd = Surrogate(curves(x, value)).at_end(near)
    pending_mean, pending_sd = Surrogate(curves(x, value, pending=[(6, 1.0)])).at_end(near)
    np.testing.assert_allclose(pending_mean, mean, atol=1e-5)
    assert (pending_sd < sd).all() and pending_sd.mean() < 0.6 * sd.mean()


def test_the_units_and_the_level_of_the_values_do_not_matter():
    """Accuracy in 0 to 1 or percent, a shifted score: the same improvement, in the same units."""
    x, new = spread_points(10), spread_points(30, seed=4)
    gains = []
    for factor, shift in ((1.0, 0.0), (100.0, 0.0), (1.0, -7.0)):
        surrogate = Surrogate(curves(x, factor * ridge(x) + shift), prior=PRIOR)
        threshold = factor * 0.94 + shift
        gains.append(surrogate.expected_improvement(*surrogate.at_end(new), threshold) / factor)
    np.testing.assert_allclose(gains[1], gains[0], rtol=1e-6)
    np.testing.assert_allclose(gains[2], gains[0], rtol=1e-6)


def test_expected_improvement_is_positive_and_falls_with_the_threshold():
    x, new = spread_points(8), spread_points(20, seed=5)
    surrogate = Surrogate(curves(x, ridge(x)))
    low, high = (surrogate.expected_improvement(*surrogate.at_end(new), threshold) for threshold in (0.9, 1.1))
    assert (high >= 0).all() and (low > high).all()


@pytest.mark.parametrize("value", [[0.5], [0.5, 0.5, 0.5], [0.0, 0.0], [1e12, -1e12, 3.0], [1e-15, 2e-15, 3e-15]])
def test_few_equal_huge_and_tiny_values_do_no_harm(value):
    """Warnings are errors in this suite: no overflow, no division by zero."""
    surrogate = Surrogate(curves(spread_points(len(value)), value), prior=PRIOR)
    middle, width = median_and_width(surrogate, spread_points(5, seed=6))
    assert np.isfinite(middle).all() and (width >= 0).all()


def test_the_same_configuration_may_be_tried_many_times():
    surrogate = Surrogate(curves(np.full((12, 2), 0.5), 0.8 + 0.01 * np.sin(np.arange(12))))
    middle, width = median_and_width(surrogate, [[0.5, 0.5]])
    assert middle[0] == pytest.approx(0.8, abs=0.01) and width[0] < 0.05


def test_two_thousand_curve_points_are_thinned_and_not_refused():
    x = spread_points(700)
    trial = np.repeat(np.arange(700), 3)[:2000]
    fidelity = np.tile([0.25, 0.5, 1.0], 700)[:2000]
    value = ridge(x)[trial] - 0.1 * maturity(fidelity)
    surrogate = Surrogate(curves(x, value, trial=trial, fidelity=fidelity), prior=PRIOR)
    middle, _ = median_and_width(surrogate, [[0.4, 0.6]])
    assert middle[0] == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("value", [[], [np.nan], [np.inf, 1.0]])
def test_nothing_and_infinite_values_are_refused(value):
    with pytest.raises(ValueError, match="at least one exact point, and finite"):
        Surrogate(curves(spread_points(max(len(value), 1)), value))


def test_a_run_next_to_the_best_teaches_less_than_its_expected_improvement_says():
    x = np.array([[0.5, 0.5], [0.2, 0.8], [0.8, 0.3], [0.5, 0.52], [0.5, 0.75]])
    value = 0.9 - ((x[:3] - 0.5) ** 2).sum(axis=1)
    curves = Curves(
        x=x,
        trial=np.arange(3),
        fidelity=np.ones(3),
        value=value,
        censored=np.zeros(3, dtype=bool),
        pending_trial=np.empty(0, dtype=np.int64),
        pending_fidelity=np.empty(0),
    )
    surrogate = Surrogate(curves)
    mean, sd = surrogate.at_end(x[3:])
    (beside, away), *_ = surrogate.gain_of_run(x[3:], 0)
    beside_improves, away_improves = surrogate.expected_improvement(mean, sd, float(value[0]))
    assert 0.0 <= beside < away
    assert beside / away < 0.6 * beside_improves / away_improves


def test_a_curve_that_was_flat_early_is_not_known_to_its_end():
    """Seen at an eighth and a quarter, with nobody's end known: how curves go on is a guess."""
    x = spread_points(4)
    value = [0.60, 0.60, 0.62, 0.62, 0.58, 0.58, 0.61, 0.61]
    flat = curves(x, value, trial=np.repeat(np.arange(4), 2), fidelity=np.tile([0.125, 0.25], 4))
    surrogate = Surrogate(flat)
    low, high = surrogate.quantiles(*surrogate.of_trials([0]), [0.05, 0.95])[:, 0]
    assert high - low > 0.04


def test_what_rises_towards_a_corner_is_expected_best_there():
    x = np.array([[0.5, 0.5], [0.6, 0.6], [0.7, 0.65], [0.65, 0.7], [0.4, 0.45]])
    middle, _ = median_and_width(Surrogate(curves(x, 0.5 + 0.2 * x.sum(axis=1))), [[0.7, 0.7], [1.0, 1.0]])
    assert middle[1] > middle[0] + 0.03


def test_a_run_that_ends_early_teaches_less_the_more_ranks_have_changed_between_its_end_and_the_last():
    x, new = spread_points(12), spread_points(20, seed=7)
    trial, fidelity, end = np.repeat(np.arange(12), 2), np.tile([0.25, 1.0], 12), ridge(x)
    parts = []
    for early in (end - 0.2, np.random.default_rng(0).permutation(end) - 0.2):
        surrogate = Surrogate(curves(x, np.stack([early, end], axis=1).ravel(), trial=trial, fidelity=fidelity))
        best = int(end.argmax())
        (whole, *_), (part, *_) = (surrogate.gain_of_run(new, best, fidelity=share) for share in (1.0, 0.25))
        assert (part <= whole + 1e-9).all()
        parts.append(part.sum() / whole.sum())
    assert parts[1] < 0.6 * parts[0]


def test_a_step_that_has_begun_since_changes_nothing_but_what_it_narrows() -> None:
    rng = np.random.default_rng(0)
    x, values = rng.random((14, 2)), rng.random(12)

    def under_way(count: int) -> Curves:
        pending = np.arange(12, 12 + count)
        return Curves(x, np.arange(12), np.ones(12), values, pending, np.full(count, 0.5), np.zeros(12, dtype=bool))

    one, two = Surrogate(under_way(1)), Surrogate(under_way(2))
    taken = Surrogate(under_way(2), before=one)
    at = rng.random((20, 2))
    for fresh, by_hand in zip(two.at_end(at), taken.at_end(at), strict=True):
        np.testing.assert_allclose(by_hand, fresh, rtol=1e-9)
    # Another value is another posterior.
    values = values + np.where(np.arange(12) == 3, 0.1, 0.0)
    other = Surrogate(under_way(2), before=one)
    np.testing.assert_allclose(other.at_end(at)[0], Surrogate(under_way(2)).at_end(at)[0], rtol=1e-9)
    assert not np.allclose(other.at_end(at)[0], taken.at_end(at)[0])


def test_a_run_above_what_is_believed_of_it_tells_for_its_configuration_by_the_part_that_is_its_own():
    """Twice at one place, once well: how far it lay above counts in part, and only for what was trained so."""
    x = np.concatenate([spread_points(8), [[0.5, 0.5], [0.5, 0.5]]])
    value = 0.9 - ((x - 0.5) ** 2).sum(axis=1)
    value[-1] += 0.03
    surrogate = Surrogate(curves(x, value))
    at = np.repeat(x[-1:], 4, axis=0)
    mean, sd = surrogate.at_end(at, own=0.5, trials=[9, 8, -1, -1])
    plain, plain_sd = surrogate.at_end(at, own=0.5)
    lucky, other, untried, _ = surrogate.quantiles(mean, sd, [0.5])[0]
    assert other < untried < lucky < value[-1]
    np.testing.assert_array_equal(mean[:, 2:], plain[:, 2:])
    np.testing.assert_array_equal(sd, plain_sd)
    whole, _ = surrogate.at_end(at, own=1.0, trials=[9, 8, -1, -1])
    np.testing.assert_allclose(whole - plain, 2.0 * (mean - plain))


def test_all_that_a_run_had_for_itself_and_what_is_believed_of_it_add_up_to_its_end():
    """Where one run alone was seen of each configuration, nothing is left over."""
    x = spread_points(9)
    value = np.sin(5 * x[:, 0]) + np.random.default_rng(0).normal(0, 0.2, 9)
    surrogate = Surrogate(curves(x, value))
    mean, _ = surrogate.at_end(x, own=1.0, trials=range(9))
    np.testing.assert_allclose(surrogate.unwarped(mean), np.broadcast_to(value, mean.shape), atol=1e-4)
