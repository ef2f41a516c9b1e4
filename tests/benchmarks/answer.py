"""How good the answer is: its interval, its regret, and whether it beats the luckiest trial.

    python tests/benchmarks/answer.py [--studies 50] [--first 0] [--trials 30] [--epochs 5] [--target 0.97]

Studies of our scheduler are drawn on the recorded table of real training (`record_table.py`), whose values between two
learning rates are interpolated in their logarithm. Each study sees runs of two of the three seeds; the third is held
out, to compare the recommendation with the best observed trial. The truth is the mean over all three.

With a target the studies are of the goal `time`, and all three seeds are drawn. The truth is the seconds until the mean
curve of a configuration is at the target, interpolated as everywhere; one that never is takes infinitely long.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import dataclass

import numpy as np
from families import TABLE
from record_table import SPACE
from rich.progress import track

from optimizer.search import Scheduler
from optimizer.search.racing import epochs_to_target

SEEDS = 3


class Recorded:
    """The table as something to train on."""

    def __init__(self, epochs: int) -> None:
        with np.load(TABLE) as table:
            self._sizes = {int(size): row for row, size in enumerate(table["batch_sizes"])}
            self._log_rates = np.log(table["learning_rates"])
            self._values = np.nan_to_num(table["val_accuracy"][..., :epochs], nan=0.1)
            seconds = table["train_seconds"]
        self._seconds = np.nanmedian(seconds.reshape(len(seconds), -1), axis=1)
        self.best = float(self._values[..., -1].mean(axis=2).max())

    def curve(self, batch_size: int, learning_rate: float, seed: int) -> list[float]:
        """Accuracies of one run, an epoch each."""
        values = self._values[self._sizes[batch_size], :, seed]
        return [float(np.interp(math.log(learning_rate), self._log_rates, column)) for column in values.T]

    def final(self, batch_size: int, learning_rate: float) -> float:
        """The mean final accuracy over all seeds."""
        return statistics.mean(self.curve(batch_size, learning_rate, seed)[-1] for seed in range(SEEDS))

    def seconds(self, batch_size: int) -> float:
        """Of an epoch."""
        return float(self._seconds[self._sizes[batch_size]])

    def seconds_to(self, target: float, batch_size: int, learning_rate: float) -> float:
        """Until the mean curve over all seeds is at the target."""
        curves = [self.curve(batch_size, learning_rate, seed) for seed in range(SEEDS)]
        mean = {
            epoch: (statistics.mean(values), 0.0) for epoch, values in enumerate(zip(*curves, strict=True), start=1)
        }
        epochs = epochs_to_target(target, mean)
        return math.inf if epochs is None else epochs * self.seconds(batch_size)

    def least_seconds_to(self, target: float) -> float:
        """Of all cells of the table."""
        rates = np.exp(self._log_rates).tolist()
        return min(self.seconds_to(target, size, rate) for size in self._sizes for rate in rates)


@dataclass(frozen=True)
class Outcome:
    """One study's answer, in accuracy."""

    covered: bool
    width: float
    regret: float
    ahead: float
    spent: float


def study(recorded: Recorded, seed: int, *, trials: int, epochs: int) -> Outcome:
    """Run one study to the end of its trials and judge its answer."""
    scheduler = Scheduler(
        SPACE, max_epochs=epochs, seed=seed, max_trials=trials, until=False, seconds_per_epoch=recorded.seconds
    )
    held_out = seed % SEEDS
    curves: dict[int, list[float]] = {}
    finals: list[tuple[float, int, float]] = []
    spent = 0.0
    while (step := scheduler.next()) is not None:
        size, rate = step.batch_size, step.learning_rate
        if step.trial not in curves:
            drawn = np.random.default_rng([seed, step.trial]).integers(1, SEEDS)
            curves[step.trial] = recorded.curve(size, rate, (held_out + int(drawn)) % SEEDS)
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            scheduler.tell(step.trial, epoch, curves[step.trial][epoch - 1], recorded.seconds(size))
            spent += recorded.seconds(size)
        if step.until_epoch == epochs:
            finals.append((curves[step.trial][-1], size, rate))
    advice = scheduler.recommend()
    truth = recorded.final(advice.batch_size, advice.learning_rate)
    _, lucky_size, lucky_rate = max(finals)
    chosen = recorded.curve(advice.batch_size, advice.learning_rate, held_out)[-1]
    return Outcome(
        covered=advice.low <= truth <= advice.high,
        width=advice.high - advice.low,
        regret=recorded.best - truth,
        ahead=chosen - recorded.curve(lucky_size, lucky_rate, held_out)[-1],
        spent=spent,
    )


@dataclass(frozen=True)
class TimeOutcome:
    """One study's answer, in seconds to its target; `regret` in parts of the least there are."""

    covered: bool
    width: float
    regret: float
    spent: float


def study_of_time(recorded: Recorded, seed: int, *, trials: int, epochs: int, target: float) -> TimeOutcome | None:
    """Run one study of the goal `time` and judge its answer; None where no trial reached the target."""
    scheduler = Scheduler(
        SPACE,
        max_epochs=epochs,
        seed=seed,
        max_trials=trials,
        until=False,
        seconds_per_epoch=recorded.seconds,
        target=target,
    )
    spent = 0.0
    while (step := scheduler.next()) is not None:
        drawn = int(np.random.default_rng([seed, step.trial]).integers(SEEDS))
        curve = recorded.curve(step.batch_size, step.learning_rate, drawn)
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            scheduler.tell(step.trial, epoch, curve[epoch - 1], recorded.seconds(step.batch_size))
            spent += recorded.seconds(step.batch_size)
            if curve[epoch - 1] >= target:
                break
        scheduler.given_up()
    if scheduler.advise() is None:
        return None
    advice = scheduler.recommend()
    truth = recorded.seconds_to(target, advice.batch_size, advice.learning_rate)
    return TimeOutcome(
        covered=advice.low <= truth <= advice.high,
        width=(advice.high - advice.low) / advice.mean,
        regret=truth / recorded.least_seconds_to(target),
        spent=spent,
    )


def print_time(recorded: Recorded, outcomes: list[TimeOutcome | None], target: float) -> None:
    """What studies of the goal `time` came to."""
    reached = [outcome for outcome in outcomes if outcome is not None]
    print(
        f"least mean time of the table to {target:.1%}: {recorded.least_seconds_to(target):.2f} s; "
        f"{len(outcomes) - len(reached)} of {len(outcomes)} studies did not reach it"
    )
    if not reached:
        return
    regrets = [outcome.regret for outcome in reached]
    print(
        f"the 90 % interval covers the truth in {sum(outcome.covered for outcome in reached)} of {len(reached)} "
        f"studies; its median width is {statistics.median(outcome.width for outcome in reached):.2f} of the seconds"
    )
    print(
        f"seconds of the recommendation over the least: median {statistics.median(regrets):.2f}, "
        f"worst {max(regrets):.2f}"
    )
    print(f"training of a study: median {statistics.median(outcome.spent for outcome in reached):.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first study; the others follow")
    parser.add_argument("--target", type=float, help="studies of the goal time, to this accuracy")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    recorded = Recorded(options.epochs)
    seeds = track(range(options.first, options.first + options.studies), "studies", transient=True)
    if options.target is not None:
        size = {"trials": options.trials, "epochs": options.epochs, "target": options.target}
        print_time(recorded, [study_of_time(recorded, seed, **size) for seed in seeds], options.target)
        return
    outcomes = [study(recorded, seed, trials=options.trials, epochs=options.epochs) for seed in seeds]
    regrets = [100 * outcome.regret for outcome in outcomes]
    ahead = [100 * outcome.ahead for outcome in outcomes]
    print(f"best mean accuracy of the table after {options.epochs} epochs: {recorded.best:.4f}")
    print(
        f"the 90 % interval covers the truth in {sum(outcome.covered for outcome in outcomes)} of {len(outcomes)} "
        f"studies (goal: 85 to 97 %); its median width is "
        f"{100 * statistics.median(outcome.width for outcome in outcomes):.2f} points"
    )
    print(
        f"regret of the recommendation in points: median {statistics.median(regrets):.3f} (goal: 0.1), "
        f"worst {max(regrets):.3f} (goal: 0.3)"
    )
    print(
        f"ahead of the best observed trial on the seed held out: mean {statistics.mean(ahead):+.3f} points, better in "
        f"{sum(figure > 0 for figure in ahead)}, the same in {sum(figure == 0 for figure in ahead)}, worse in "
        f"{sum(figure < 0 for figure in ahead)}"
    )
    print(f"training of a study: median {statistics.median(outcome.spent for outcome in outcomes):.0f} s")


if __name__ == "__main__":
    main()
