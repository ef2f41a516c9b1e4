"""How good the answer is: as good as it says, in what time, with what interval and odds; and against the luckiest run.

    python tests/benchmarks/answer.py [--studies 50] [--first 0] [--trials 30] [--epochs 5] [--target 0.97 | --fresh]
    python tests/benchmarks/answer.py --curves 0.005 [--studies 48] [--first 0]

Studies of our scheduler are drawn on the recorded table of real training (`record_table.py`), whose values between two
learning rates are interpolated in their logarithm. Each study sees runs of two of the three seeds; the third is held
out, to compare the recommendation with the best observed trial. The truth is the mean over all three. With a target
the goal is the time to it: the truth is the geometric mean of seconds, up to all epochs of the table.

Two runs of two seeds of one table say little of how runs differ: beside each other they are the same two runs. With
`--fresh` a run is the mean of the table and the residual of a run nearby, drawn anew, and the mean is the truth. With
`--curves` the studies are of the real curves of `lcbench.py`, a problem each, with noise in parts of their range.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lcbench
import numpy as np
from batchopt.goals.crossing import epochs_to_target
from batchopt.goals.to_target import ToTarget
from batchopt.question.metric import Metric
from batchopt.search import Scheduler
from batchopt.search.advice import Advice
from families import TABLE
from record_table import SPACE
from rich.progress import track
from scipy.ndimage import maximum_filter

SEEDS = 3
ACCURACY = Metric()

SURE_OF_TWO = 0.99
"""Odds of two configurations that should hardly ever be wrong."""

Cells = Sequence[tuple[float, float]]
"""The true value and the seconds of each configuration."""


class Recorded:
    """The table as something to train on; a trial's final accuracy is that after `epochs`."""

    def __init__(self, epochs: int) -> None:
        with np.load(TABLE) as table:
            self._sizes = {int(size): row for row, size in enumerate(table["batch_sizes"])}
            self._rates = table["learning_rates"].tolist()
            self._values = np.nan_to_num(table["val_accuracy"], nan=0.1)
            seconds = table["train_seconds"]
        self._log_rates = np.log(self._rates)
        self._epochs = epochs
        self._seconds = np.nanmedian(seconds.reshape(len(seconds), -1), axis=1)
        self.best = float(self._values[..., epochs - 1].mean(axis=2).max())

    def curve(self, batch_size: int, learning_rate: float, seed: int) -> list[float]:
        """Accuracies of one run, an epoch each."""
        return self._whole(batch_size, learning_rate, seed)[: self._epochs]

    def final(self, batch_size: int, learning_rate: float) -> float:
        """The mean final accuracy over all seeds."""
        return statistics.mean(self.curve(batch_size, learning_rate, seed)[-1] for seed in range(SEEDS))

    def seconds(self, batch_size: int) -> float:
        """Of an epoch."""
        return float(self._seconds[self._sizes[batch_size]])

    def seconds_to(self, target: float, batch_size: int, learning_rate: float, seed: int) -> float:
        """Until one run is at a target; infinite where it never is in the table."""
        values = self._whole(batch_size, learning_rate, seed)
        epochs = epochs_to_target(
            ACCURACY.target(target), {at: (value, 0.0) for at, value in enumerate(values, start=1)}
        )
        return math.inf if epochs is None else epochs * self.seconds(batch_size)

    def mean_seconds_to(self, target: float, batch_size: int, learning_rate: float) -> float:
        """The geometric mean over all seeds."""
        each = [self.seconds_to(target, batch_size, learning_rate, seed) for seed in range(SEEDS)]
        return statistics.geometric_mean(each) if max(each) < math.inf else math.inf

    def least_seconds_to(self, target: float) -> float:
        """Of all cells of the table."""
        return min(self.mean_seconds_to(target, size, rate) for size in self._sizes for rate in self._rates)

    @property
    def cells(self) -> Cells:
        """All of the table."""
        return [
            (self.final(size, rate), self.seconds(size) * self._epochs) for size in self._sizes for rate in self._rates
        ]

    def _whole(self, batch_size: int, learning_rate: float, seed: int) -> list[float]:
        values = self._values[self._sizes[batch_size], :, seed]
        return [float(np.interp(math.log(learning_rate), self._log_rates, column)) for column in values.T]


class Fresh(Recorded):
    """Runs that are the mean of the table and the residual of a run nearby, drawn anew for each of them."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self._most = maximum_filter(self._values.max(axis=2), size=(3, 3, 1))
        # Of three runs the residuals are too small by this factor.
        self._residuals = (self._values - self._values.mean(axis=2, keepdims=True)) * math.sqrt(SEEDS / (SEEDS - 1))

    def fresh_curve(self, batch_size: int, learning_rate: float, rng: np.random.Generator) -> list[float]:
        """One run, an epoch each."""
        mean = np.mean([self.curve(batch_size, learning_rate, seed) for seed in range(SEEDS)], axis=0)
        near = int(np.abs(self._log_rates - math.log(learning_rate)).argmin())
        at = np.array([self._sizes[batch_size], near]) + rng.integers(-1, 2, size=2)
        row, column = np.clip(at, 0, np.array(self._residuals.shape[:2]) - 1)
        residual = rng.choice([-1, 1]) * self._residuals[row, column, rng.integers(SEEDS)]
        # What one run lost beside a cliff no other gains: none does better than the best of those nearby.
        most = self._most[self._sizes[batch_size], near, : self._epochs]
        return np.minimum(mean + residual[: self._epochs], most).tolist()


@dataclass(frozen=True)
class Odds:
    """What one study says of two configurations, beside what is so.

    Attributes:
        others: of the other batch sizes, the probability that each is better than the recommended one, and whether it
            is: 1, 0, or 0.5 where the two are equal.
        over_default: the probability that the recommended one is better than the default, and whether it is.
        gain_covered: whether the 90 % interval of its gain over the default holds the truth.
    """

    others: list[tuple[float, float]]
    over_default: tuple[float, float]
    gain_covered: bool

    @classmethod
    def of(cls, advice: Advice, truth: Callable[[int, float], float]) -> Odds:
        """Of what is advised where more is better."""
        best, default = advice.recommended, advice.against_default
        assert default is not None
        value = truth(best.batch_size, best.learning_rate)
        gain = value - truth(default.batch_size, default.learning_rate)
        return cls(
            others=[
                (row.chance_better, _above(truth(row.batch_size, row.learning_rate) - value))
                for row in advice.by_batch_size
                if row is not best
            ],
            over_default=(default.chance, _above(gain)),
            gain_covered=default.low <= gain <= default.high,
        )


def _above(difference: float) -> float:
    return 0.5 * (1 + float(np.sign(difference)))


@dataclass(frozen=True)
class Outcome:
    """One study's answer: of accuracies differences, of seconds to a target ratios.

    Attributes:
        covered: whether the interval holds the truth.
        width: of the interval.
        regret: the truth against the table's best.
        ahead: the recommendation against the best observed trial, on the seed held out.
        spent: seconds of training.
        odds: of two configurations; None of seconds.
    """

    covered: bool
    width: float
    regret: float
    ahead: float
    spent: float
    odds: Odds | None = None


@dataclass(frozen=True)
class Answer:
    """What one study recommends, beside the truth of all configurations.

    Attributes:
        within: whether it is truly within the tolerance of the best of all.
        stated: the probability of that, as it is stated.
        slower: its seconds in parts of the least of all that truly are.
        tolerance, regret: in parts of the range.
        covered: whether its interval holds the truth.
        dominated: whether another batch size that was tried is expected better, and faster.
        trained: whether it was trained to its end.
        odds: of two configurations.
    """

    within: bool
    stated: float
    slower: float
    tolerance: float
    regret: float
    covered: bool
    dominated: bool
    trained: bool
    odds: Odds

    @classmethod
    def of(cls, advice: Advice, truth: Callable[[int, float], float], cells: Cells, span: float) -> Answer:
        """Of what is advised where more is better; cells are the truth and the seconds of all configurations."""
        row, best = advice.recommended, max(value for value, _ in cells)
        value = truth(row.batch_size, row.learning_rate)
        least = min(seconds for there, seconds in cells if best - there <= advice.tolerance)
        tried = [other for other in advice.by_batch_size if other.runs]
        return cls(
            within=best - value <= advice.tolerance,
            stated=row.chance_within,
            slower=row.seconds / least,
            tolerance=advice.tolerance / span,
            regret=(best - value) / span,
            covered=row.low <= value <= row.high,
            dominated=any(other.mean > row.mean and other.seconds < row.seconds for other in tried),
            trained=row.trial >= 0,
            odds=Odds.of(advice, truth),
        )


@dataclass(frozen=True)
class Trained:
    """A trial of a study: its configuration, and what was seen of its curve."""

    batch_size: int
    learning_rate: float
    values: list[float]


def train(scheduler: Scheduler, recorded: Recorded, seed: int, target: float = math.inf) -> list[Trained]:
    """Run a study to the end of its trials, each until it is at the target; run `seed % SEEDS` is unseen."""
    trained: dict[int, Trained] = {}
    curves: dict[int, list[float]] = {}
    while (step := scheduler.next()) is not None:
        size, rate = step.batch_size, step.learning_rate
        if step.trial not in curves:
            drawn = np.random.default_rng([seed, step.trial]).integers(1, SEEDS)
            curves[step.trial] = recorded.curve(size, rate, (seed + int(drawn)) % SEEDS)
            trained[step.trial] = Trained(size, rate, [])
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            value = curves[step.trial][epoch - 1]
            scheduler.tell(step.trial, epoch, value, recorded.seconds(size))
            trained[step.trial].values.append(value)
            if value >= target:
                break
    return list(trained.values())


def drive(
    scheduler: Scheduler, run: Callable[[int, float, int], Sequence[float]], seconds: Callable[[int], float]
) -> None:
    """Run a study to its end; `run` makes the curve of a batch size, a rate and a trial."""
    curves: dict[int, Sequence[float]] = {}
    while (step := scheduler.next()) is not None:
        if step.trial not in curves:
            curves[step.trial] = run(step.batch_size, step.learning_rate, step.trial)
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            scheduler.tell(step.trial, epoch, float(curves[step.trial][epoch - 1]), seconds(step.batch_size))
        scheduler.given_up()


def fresh_answer(recorded: Fresh, seed: int, *, trials: int, epochs: int) -> Answer:
    """A study of runs drawn anew."""
    scheduler = Scheduler(
        SPACE, max_epochs=epochs, seed=seed, max_trials=trials, until=False, seconds_per_epoch=recorded.seconds
    )
    drive(
        scheduler,
        lambda size, rate, trial: recorded.fresh_curve(size, rate, np.random.default_rng([seed, trial])),
        recorded.seconds,
    )
    return judged(scheduler, recorded.final, recorded.cells)


def answer_of_curves(problem: str, seed: int, noise: float, *, trials: int) -> Answer:
    """A study of real curves."""
    made = lcbench.make(problem, seed, noise)
    scheduler = Scheduler(
        made.space,
        max_epochs=made.max_epochs,
        seed=seed,
        max_trials=trials,
        until=False,
        seconds_per_epoch=made.seconds_per_epoch,
    )
    drive(scheduler, lambda size, rate, trial: made.curve(size, rate, trial, {}).tolist(), made.seconds_per_epoch)
    return judged(scheduler, lambda size, rate: made.final(size, rate, {}), lcbench.cells(made))


def judged(scheduler: Scheduler, truth: Callable[[int, float], float], cells: Cells) -> Answer:
    """What a study that is over recommends."""
    advice = scheduler.advise()
    assert advice is not None
    values = [value for value, _ in cells]
    return Answer.of(advice, truth, cells, max(values) - min(values))


def spent(recorded: Recorded, trained: list[Trained]) -> float:
    """Seconds of training."""
    return sum(len(trial.values) * recorded.seconds(trial.batch_size) for trial in trained)


def study(recorded: Recorded, seed: int, *, trials: int, epochs: int) -> Outcome:
    """Run one study to the end of its trials and judge its answer."""
    scheduler = Scheduler(
        SPACE, max_epochs=epochs, seed=seed, max_trials=trials, until=False, seconds_per_epoch=recorded.seconds
    )
    trained = train(scheduler, recorded, seed)
    finals = [
        (trial.values[-1], trial.batch_size, trial.learning_rate) for trial in trained if trial.values[epochs - 1 :]
    ]
    advice = scheduler.advise()
    assert advice is not None
    best = advice.recommended
    truth = recorded.final(best.batch_size, best.learning_rate)
    _, lucky_size, lucky_rate = max(finals)
    chosen = recorded.curve(best.batch_size, best.learning_rate, seed % SEEDS)[-1]
    return Outcome(
        covered=best.low <= truth <= best.high,
        width=best.high - best.low,
        regret=recorded.best - truth,
        ahead=chosen - recorded.curve(lucky_size, lucky_rate, seed % SEEDS)[-1],
        spent=spent(recorded, trained),
        odds=Odds.of(advice, recorded.final),
    )


def study_of_time(recorded: Recorded, seed: int, target: float, *, trials: int, epochs: int) -> Outcome | None:
    """The same for the goal `time`; None where no trial reached the target."""
    scheduler = Scheduler(
        SPACE,
        max_epochs=epochs,
        seed=seed,
        max_trials=trials,
        until=False,
        seconds_per_epoch=recorded.seconds,
        view=ToTarget(ACCURACY.target(target)),
    )
    trained = train(scheduler, recorded, seed, target)
    advice = scheduler.advise()
    if advice is None:
        return None
    best = advice.recommended
    truth = recorded.mean_seconds_to(target, best.batch_size, best.learning_rate)
    reached = []
    for trial in trained:
        curve = {at: (value, 0.0) for at, value in enumerate(trial.values, start=1)}
        epochs_needed = epochs_to_target(ACCURACY.target(target), curve)
        if epochs_needed is not None:
            reached.append((epochs_needed * recorded.seconds(trial.batch_size), trial.batch_size, trial.learning_rate))
    _, lucky_size, lucky_rate = min(reached)
    chosen = recorded.seconds_to(target, best.batch_size, best.learning_rate, seed % SEEDS)
    lucky = recorded.seconds_to(target, lucky_size, lucky_rate, seed % SEEDS)
    return Outcome(
        covered=best.low <= truth <= best.high,
        width=best.high / best.low,
        regret=truth / recorded.least_seconds_to(target),
        ahead=1.0 if chosen == lucky else chosen / lucky,
        spent=spent(recorded, trained),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="seed of the first study; the others follow")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--target", type=float, help="the goal is the time to this accuracy")
    parser.add_argument("--fresh", action="store_true", help="each run with a residual of its own")
    parser.add_argument("--curves", type=float, metavar="NOISE", help="real curves, and how runs of them differ")
    options = parser.parse_args()
    if options.curves is not None:
        problems = lcbench.problems()[options.first : options.first + options.studies]
        answers = [
            answer_of_curves(problem, 0, options.curves, trials=options.trials)
            for problem in track(problems, "studies", transient=True)
        ]
        print("\n".join(said_of_answers(answers)))
        return
    recorded = Recorded(options.epochs)
    seeds = track(range(options.first, options.first + options.studies), "studies", transient=True)
    sizes = {"trials": options.trials, "epochs": options.epochs}
    if options.fresh:
        fresh = Fresh(options.epochs)
        said = said_of_answers([fresh_answer(fresh, seed, **sizes) for seed in seeds])
    elif options.target is None:
        said = said_of([study(recorded, seed, **sizes) for seed in seeds], recorded, options.epochs)
    else:
        outcomes = [study_of_time(recorded, seed, options.target, **sizes) for seed in seeds]
        said = said_of_time(outcomes, recorded, options.target)
    print("\n".join(said))


def said_of_answers(answers: Sequence[Answer]) -> list[str]:
    """What recommendations come to."""
    count, slower = len(answers), [answer.slower for answer in answers]
    regrets, tolerances = [answer.regret for answer in answers], [answer.tolerance for answer in answers]
    return [
        f"truly within their tolerance of the best: {sum(a.within for a in answers)} of {count} (goal: 80 %); stated: "
        f"{statistics.mean(a.stated for a in answers):.0%} in the mean",
        f"their time in parts of the least of all that truly are: median {statistics.median(slower):.2f} (goal: 1.15), "
        f"90th percentile {np.quantile(slower, 0.9):.2f}",
        f"the 90 % interval holds the truth in {sum(a.covered for a in answers)} of {count} (goal: 85 to 97 %)",
        f"dominated: {sum(a.dominated for a in answers)}; trained to their end: {sum(a.trained for a in answers)}",
        f"in parts of the range, median and worst: tolerance {statistics.median(tolerances):.2%}, "
        f"{max(tolerances):.2%}; regret {statistics.median(regrets):.2%}, {max(regrets):.2%}",
        *said_of_odds([answer.odds for answer in answers]),
    ]


def said_of_odds(odds: Sequence[Odds]) -> list[str]:
    """What comparisons of two configurations come to."""
    others = [pair for each in odds for pair in each.others]
    # As sure that it is better, or that it is not.
    sure = [max(chance, 1 - chance) > SURE_OF_TWO for chance, _ in others]
    false = [one and abs(chance - true) > 0.5 for one, (chance, true) in zip(sure, others, strict=True)]
    stated, true = (statistics.mean(column) for column in zip(*(each.over_default for each in odds), strict=True))
    return [
        f"over {SURE_OF_TWO:.0%} sure of two configurations: wrong in {sum(false)} of {sum(sure)}; Brier score of all "
        f"such odds {statistics.mean((chance - true) ** 2 for chance, true in others):.3f}",
        f"better than the default: stated {stated:.0%}, true {true:.0%}; the 90 % interval of the gain holds it in "
        f"{sum(each.gain_covered for each in odds)} of {len(odds)}",
    ]


def said_of(outcomes: list[Outcome], recorded: Recorded, epochs: int) -> list[str]:
    """What studies of accuracy come to."""
    regrets = [100 * outcome.regret for outcome in outcomes]
    ahead = [100 * outcome.ahead for outcome in outcomes]
    return [
        f"best mean accuracy of the table after {epochs} epochs: {recorded.best:.4f}",
        f"the 90 % interval covers the truth in {sum(outcome.covered for outcome in outcomes)} of {len(outcomes)} "
        f"studies (goal: 85 to 97 %); its median width is "
        f"{100 * statistics.median(outcome.width for outcome in outcomes):.2f} points",
        f"regret of the recommendation in points: median {statistics.median(regrets):.3f} (goal: 0.1), "
        f"worst {max(regrets):.3f} (goal: 0.3)",
        f"ahead of the best observed trial on the seed held out: mean {statistics.mean(ahead):+.3f} points, better in "
        f"{sum(figure > 0 for figure in ahead)}, the same in {sum(figure == 0 for figure in ahead)}, worse in "
        f"{sum(figure < 0 for figure in ahead)}",
        f"training of a study: median {statistics.median(outcome.spent for outcome in outcomes):.0f} s",
        *said_of_odds([outcome.odds for outcome in outcomes if outcome.odds is not None]),
    ]


def said_of_time(outcomes: Sequence[Outcome | None], recorded: Recorded, target: float) -> list[str]:
    """What studies of the goal `time` come to."""
    known = [outcome for outcome in outcomes if outcome is not None]
    said = [
        f"least mean time of the table to {target:.1%}: {recorded.least_seconds_to(target):.2f} s",
        f"no trial reached it in {len(outcomes) - len(known)} of {len(outcomes)} studies",
    ]
    if not known:
        return said
    regrets, ahead = [outcome.regret for outcome in known], [outcome.ahead for outcome in known]
    return [
        *said,
        f"the 90 % interval covers the truth in {sum(outcome.covered for outcome in known)} of {len(known)} studies; "
        f"its upper end is {statistics.median(outcome.width for outcome in known):.2f} times its lower in the median",
        f"time of the recommendation in parts of the least: median {statistics.median(regrets):.3f}, "
        f"worst {max(regrets):.3f}",
        f"in parts of the soonest observed trial's, on the seed held out: median {statistics.median(ahead):.3f}, "
        f"sooner in {sum(figure < 1 for figure in ahead)}, the same in {sum(figure == 1 for figure in ahead)}, "
        f"later in {sum(figure > 1 for figure in ahead)}",
        f"training of a study: median {statistics.median(outcome.spent for outcome in known):.0f} s",
    ]


if __name__ == "__main__":
    main()
