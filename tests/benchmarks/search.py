"""What the search costs until it has found a good configuration, against its rivals, on a simulated clock.

    python tests/benchmarks/search.py                                  # our scheduler and every rival, 50 studies each
    python tests/benchmarks/search.py --quick                          # 10 studies each of the rivals that are fast
    python tests/benchmarks/search.py --families mnist,ridge --rivals tpe --studies 20

Cost is simulated training seconds, in units of one mean full trial, until the incumbent (the best observed complete
trial) has a noise-free final value within 1 % of the range of final values over the space. A study that does not get
there within 30 counts as missed, whether it stopped by itself or not. `gp` and `kerastuner` need the `bench` extra.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from families import FAMILIES, Landscape, make
from rivals import RIVALS, Search, ours

from optimizer.search import Scheduler, SearchSpace, Step
from optimizer.search.trials import Trial

LIMIT = 30.0
OURS = "batchopt"
SLOW = ("gp", "kerastuner")


def study(landscape: Landscape, search: Search, *, workers: int = 1) -> float:
    """Cost until the incumbent is good enough, in mean full trials; infinite where that takes more than `LIMIT`.

    With several workers the clocks run side by side and what all of them spent is counted.
    """
    sign = 1.0 if landscape.direction == "maximize" else -1.0
    curves: dict[int, np.ndarray] = {}
    best, spent = -math.inf, 0.0
    under_way: list[tuple[float, int, Step]] = []
    now, asked = 0.0, 0
    while spent < LIMIT * landscape.mean_trial_s:
        while len(under_way) < workers:
            step = search.next()
            if step is None:
                break
            if step.trial not in curves:
                curves[step.trial] = landscape.curve(step.batch_size, step.learning_rate, step.trial)
            ends = now + landscape.seconds_per_epoch(step.batch_size) * (step.until_epoch - step.from_epoch)
            asked += 1
            under_way.append((ends, asked, step))
        if not under_way:
            return math.inf
        now, _, step = under_way.pop(under_way.index(min(under_way)))
        seconds = landscape.seconds_per_epoch(step.batch_size)
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            value = float(curves[step.trial][epoch - 1])
            spent += seconds
            if not math.isfinite(value):
                search.infeasible(step.trial, "diverged")
                break
            search.tell(step.trial, epoch, value, seconds)
            if epoch == landscape.max_epochs and sign * value > best:
                best = sign * value
                if landscape.good_enough(step.batch_size, step.learning_rate):
                    return spent / landscape.mean_trial_s
    return math.inf


def costs(name: str, make_search: Callable[[Landscape, int], Search], family: str, studies: int, workers: int) -> list:
    """The costs of the studies of one family, one a seed, with progress on standard error."""
    found = []
    for seed in range(studies):
        landscape = make(family, seed)
        found.append(study(landscape, make_search(landscape, seed), workers=workers))
        print(f"\r{name}, {family}: {seed + 1} of {studies} ", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
    return found


def table(families: Sequence[str], rivals: Sequence[str], studies: int, workers: int) -> None:
    """Print medians, misses and ratios, a row a family."""
    searches = {OURS: ours, **{name: RIVALS[name] for name in rivals}}
    medians: dict[str, dict[str, float]] = {name: {} for name in searches}
    print("median cost in full trials (studies that missed)")
    print(f"{'family':10s}" + "".join(f"{name:>17s}" for name in searches))
    for family in families:
        row = f"{family:10s}"
        for name, make_search in searches.items():
            found = costs(name, make_search, family, studies, workers if name == OURS else 1)
            medians[name][family] = min(statistics.median(found), LIMIT)
            cell = f"{medians[name][family]:.2f} ({sum(map(math.isinf, found))})"
            row += f"{cell:>17s}"
        print(row, flush=True)
    synthetic = [family for family in families if family != "mnist"]
    if len(synthetic) > 1:
        means = {name: statistics.mean(medians[name][family] for family in synthetic) for name in searches}
        print(f"{'mean':10s}" + "".join(f"{mean:17.2f}" for mean in means.values()))
        print(f"{'ratio':10s}" + "".join(f"{means[OURS] / mean:17.2f}" for mean in means.values()))
    if "mnist" in families:
        ratios = (medians[OURS]["mnist"] / medians[name]["mnist"] for name in searches)
        print(f"{'mnist':10s}" + "".join(f"{ratio:17.2f}" for ratio in ratios))
    print(f"a median over {LIMIT:g} counts as {LIMIT:g}; ratio: our cost over theirs")


def decision_times(trials: int, repeats: int = 9) -> list[float]:
    """Seconds of one decision with so many trials, their curves at all rungs mixed, in ascending order."""
    landscape = make("ridge", 0)
    times = []
    for repeat in range(repeats):
        scheduler = Scheduler(SearchSpace((16, 512)), max_epochs=landscape.max_epochs, seed=repeat, until=False)
        rng = np.random.default_rng(repeat)
        for number in range(trials):
            size, rate = landscape.space.from_unit(rng.random(2))
            last = math.ceil(landscape.max_epochs / (1, 2, 4, 4, 4)[number % 5])
            values = landscape.curve(size, rate, number)[:last]
            curve = {epoch: (float(value), 1.0) for epoch, value in enumerate(values, start=1)}
            state = "complete" if last == landscape.max_epochs else "paused"
            scheduler.add(Trial(number, size, rate, curve=curve, state=state))
        began = time.perf_counter()
        scheduler.next()
        times.append(time.perf_counter() - began)
    return sorted(times)


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, help="studies of each family (50; 10 with --quick)")
    parser.add_argument("--families", default=",".join((*FAMILIES, "mnist")), help="comma-separated")
    parser.add_argument("--rivals", help=f"comma-separated, of {', '.join(RIVALS)}; 'none' for none")
    parser.add_argument("--quick", action="store_true", help="10 studies, without the rivals that are slow")
    parser.add_argument("--workers", type=int, default=1, help="parallel workers of our scheduler; rivals have one")
    options = parser.parse_args()
    names = [name for name in RIVALS if not (options.quick and name in SLOW)]
    if options.rivals is not None:
        names = [] if options.rivals == "none" else options.rivals.split(",")
    unknown = [name for name in names if name not in RIVALS]
    unknown += [family for family in options.families.split(",") if family not in (*FAMILIES, "mnist")]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    for trials in (30, 300):
        times = decision_times(trials)
        print(
            f"a decision with {trials} trials: median {1e3 * statistics.median(times):.0f} ms, "
            f"slowest of {len(times)} {1e3 * times[-1]:.0f} ms"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB, before any rival runs")
    table(options.families.split(","), names, options.studies or (10 if options.quick else 50), options.workers)


if __name__ == "__main__":
    main()
