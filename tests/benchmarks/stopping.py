"""What stopping saves where trials cannot be paused, and what it costs: `python stopping.py [STUDIES] [TRIALS]`.

Studies of the synthetic families, trained to the end each trial, and with those stopped that have no hope
(`search/stopping.py`). Prints by family, as medians over studies: the part of all epochs that was trained, and the gap
of the best complete trial, noise-free, with stopping and without; and how many studies lost more than 1 % by it.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from batchopt.search.scheduler import Scheduler
from batchopt.search.steps import Trial
from batchopt.search.stopping import is_hopeless, may_stop
from families import FAMILIES, Landscape, make


def study(landscape: Landscape, trials: int, *, stopping: bool) -> tuple[float, float]:
    """The part of the epochs that was trained, and the gap of the best of those trained to their end."""
    sign = 1.0 if landscape.direction == "maximize" else -1.0
    scheduler = Scheduler(
        landscape.space,
        max_epochs=landscape.max_epochs,
        direction=landscape.direction,
        seconds_per_epoch=landscape.seconds_per_epoch,
        max_trials=trials,
        until=False,
        pause=False,
    )
    seen: list[Trial] = []
    trained, best, gap = 0, -math.inf, math.inf
    while (step := scheduler.next()) is not None:
        trial = Trial(step.trial, step.batch_size, step.learning_rate, step.extra, state="running")
        seen.append(trial)
        seconds = landscape.seconds_per_epoch(step.batch_size)
        for epoch, value in enumerate(landscape.curve(step.batch_size, step.learning_rate, step.trial, step.extra), 1):
            trained += 1
            if not math.isfinite(value):
                scheduler.infeasible(step.trial, "diverged")
                trial.state, trial.reason = "infeasible", "diverged"
                break
            trial.curve[epoch] = (float(value), seconds)
            scheduler.tell(step.trial, epoch, float(value), seconds)
            if stopping and may_stop(epoch, landscape.max_epochs):
                how = {"max_epochs": landscape.max_epochs, "sign": sign}
                if is_hopeless(seen, step.trial, landscape.space, **how):
                    trial.state = "stopped"
                    scheduler.add(trial)
                    break
        else:
            trial.state = "complete"
            if sign * value > best:
                best, gap = sign * value, landscape.gap(step.batch_size, step.learning_rate, step.extra)
    return trained / (trials * landscape.max_epochs), gap


def main(studies: int, trials: int) -> None:
    print("family     epochs, without; gap with, without; studies that lost more than 1 % of the range")
    for family in FAMILIES:
        found = []
        for seed in range(studies):
            landscape = make(family, seed)
            found.append([*study(landscape, trials, stopping=True), *study(landscape, trials, stopping=False)])
        epochs, gap, all_epochs, all_gap = np.median(found, axis=0)
        lost = sum(row[1] > row[3] + 0.01 for row in found)
        gained = sum(row[3] > row[1] + 0.01 for row in found)
        print(
            f"{family:10} {epochs:.2f} {all_epochs:.2f}; {100 * gap:.2f} {100 * all_gap:.2f} %; "
            f"{lost} of {studies} lost, {gained} won",
            flush=True,
        )


if __name__ == "__main__":
    studies, trials = (*sys.argv[1:], *("6", "20")[len(sys.argv) - 1 :])
    main(int(studies), int(trials))
