"""What the search costs until it has found a good configuration, against its rivals, on a simulated clock.

    python tests/benchmarks/search.py                                  # the families: ours and all rivals, 50 studies
    python tests/benchmarks/search.py --quick                          # 10 studies each of the rivals that are fast
    python tests/benchmarks/search.py --families mnist,ridge --rivals tpe --studies 20
    python tests/benchmarks/search.py --families ridge+1,ridge+2 --rivals tpe,gp     # with extra dimensions
    python tests/benchmarks/search.py --curves --rivals whole,gp-ei    # 48 problems of real curves, 3 studies each
    python tests/benchmarks/search.py --curves --half b --noise 0.01 --rivals none --keep found.jsonl

Cost is simulated training seconds, in units of one mean full trial, until the incumbent (the best observed complete
trial) has a noise-free final value within 1 % of the range of final values over the space (2 % and 5 % are told of real
curves). A study that does not get there within 30 counts as missed, whether it stopped by itself or not, and as 30 in a
mean. `gp` and `kerastuner` need the `bench` extra.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lcbench
import numpy as np
from batchopt.search import Scheduler, SearchSpace, Step
from batchopt.search.steps import Trial
from families import FAMILIES, Landscape, make
from rivals import OURS, RIVALS, SEARCHES, Search, ours_to_the_end

LIMIT = 30.0
TOLERANCES = (0.01, 0.02, 0.05)
ANSWER_TRIALS = 30
SLOW = ("gp", "gp-ei", "kerastuner")


def study(landscape: Landscape, search: Search, *, workers: int = 1) -> list[float]:
    """Costs until the incumbent is within each of `TOLERANCES`, in mean full trials; infinite where above `LIMIT`.

    With several workers the clocks run side by side and what all of them spent is counted.
    """
    sign = 1.0 if landscape.direction == "maximize" else -1.0
    found = [math.inf] * len(TOLERANCES)
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
                curves[step.trial] = landscape.curve(step.batch_size, step.learning_rate, step.trial, step.extra)
            ends = now + landscape.seconds_per_epoch(step.batch_size) * (step.until_epoch - step.from_epoch)
            asked += 1
            under_way.append((ends, asked, step))
        if not under_way:
            return found
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
                gap = landscape.gap(step.batch_size, step.learning_rate, step.extra)
                cost = spent / landscape.mean_trial_s
                found = [min(was, cost) if gap <= most else was for was, most in zip(found, TOLERANCES, strict=True)]
                if found[0] < math.inf:
                    return found
    return found


def answer(landscape: Landscape, seed: int) -> list[float]:
    """Of a whole study of ours: the regret of what it recommends in parts of the range, whether its interval holds."""
    scheduler = ours_to_the_end(landscape, seed, max_trials=ANSWER_TRIALS)
    curves: dict[int, np.ndarray] = {}
    while (step := scheduler.next()) is not None:
        if step.trial not in curves:
            curves[step.trial] = landscape.curve(step.batch_size, step.learning_rate, step.trial, step.extra)
        for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
            value = float(curves[step.trial][epoch - 1])
            scheduler.tell(step.trial, epoch, value, landscape.seconds_per_epoch(step.batch_size))
    advice = scheduler.recommend()
    truth = landscape.final(advice.batch_size, advice.learning_rate, advice.extra)
    regret = landscape.gap(advice.batch_size, advice.learning_rate)
    return [regret, float(advice.low <= truth <= advice.high), (advice.high - advice.low) / landscape.span]


class Kept:
    """Figures by what they are of, kept in a file where one is given, so that what was cut goes on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found = {tuple(key): figures for key, figures in map(json.loads, lines)}

    def get(self, key: tuple[object, ...], make_figures: Callable[[], list[float]]) -> list[float]:
        """The figures of a key, made now where they are not kept."""
        if key not in self._found:
            self._found[key] = make_figures()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps([key, self._found[key]]) + "\n")
        return self._found[key]


def said_of_costs(found: Sequence[Sequence[float]]) -> str:
    """A row of the table of real curves."""
    firsts = [min(costs[0], LIMIT) for costs in found]
    reached = sum(costs[0] < math.inf for costs in found) / len(found)
    medians = [min(statistics.median(costs[at] for costs in found), LIMIT) for at in range(len(TOLERANCES))]
    return f"{medians[0]:8.2f}{statistics.mean(firsts):8.2f}{reached:9.1%}{medians[1]:8.2f}{medians[2]:8.2f}"


def real_curves(names: Sequence[str], options: argparse.Namespace) -> None:
    """Print what each search costs on real curves."""
    kept, seeds = Kept(options.keep), range(options.first, options.first + (options.studies or 3))
    problems = lcbench.problems(options.half)[:: options.stride]
    print(f"{len(problems)} problems, {len(seeds)} studies each, noise {options.noise:.1%} of the range")
    print(f"{'search':16s}{'median':>8s}{'mean':>8s}{'reached':>9s}{'to 2 %':>8s}{'to 5 %':>8s}")
    for name in names:
        found = []
        for seed in seeds:
            for problem in problems:
                landscape = lcbench.make(problem, seed, options.noise)

                def costs(landscape: Landscape = landscape, seed: int = seed, name: str = name) -> list[float]:
                    return study(landscape, SEARCHES[name](landscape, seed), workers=options.workers)

                key = ("cost", name, ",".join(options.set), options.workers, problem, seed, options.noise)
                found.append(kept.get(key, costs))
                if options.each:
                    print(f"  {problem:10s} {seed} " + " ".join(f"{cost:6.2f}" for cost in found[-1]), flush=True)
            _progress(f"{name}: {len(found)} of {len(problems) * len(seeds)}")
        _progress("")
        print(f"{name:16s}{said_of_costs(found)}", flush=True)


def real_answers(options: argparse.Namespace) -> None:
    """Print how good the answers of whole studies are on real curves."""
    kept, seeds = Kept(options.keep), range(options.first, options.first + (options.studies or 3))
    found = []
    for seed in seeds:
        for problem in lcbench.problems(options.half)[:: options.stride]:
            landscape = lcbench.make(problem, seed, options.noise)
            key = ("answer", ",".join(options.set), problem, seed, options.noise)
            found.append(kept.get(key, lambda landscape=landscape, seed=seed: answer(landscape, seed)))
            if options.each:
                print(f"  {problem:10s} {seed} " + " ".join(f"{figure:7.4f}" for figure in found[-1]), flush=True)
            _progress(f"{len(found)} answers")
    _progress("")
    regrets, held, widths = (np.array(column) for column in zip(*found, strict=True))
    print(
        f"{len(found)} studies of {ANSWER_TRIALS} trials, noise {options.noise:.1%}: regret of the recommendation in "
        f"parts of the range, median {np.median(regrets):.2%}, 90th percentile {np.quantile(regrets, 0.9):.2%}, worst "
        f"{regrets.max():.2%}; the 90 % interval holds {held.mean():.1%}, median width {np.median(widths):.1%}"
    )


def table(families: Sequence[str], names: Sequence[str], studies: int, first: int, workers: int) -> None:
    """Print medians, misses and ratios on the families, a row a family."""
    medians: dict[str, dict[str, float]] = {name: {} for name in names}
    print("median cost in full trials (studies that missed)")
    print(f"{'family':10s}" + "".join(f"{name:>17s}" for name in names))
    for family in families:
        row = f"{family:10s}"
        for name in names:
            found = []
            for seed in range(first, first + studies):
                landscape = make(family, seed)
                at_once = workers if name == OURS else 1
                found.append(study(landscape, SEARCHES[name](landscape, seed), workers=at_once)[0])
                _progress(f"{name}, {family}: {len(found)} of {studies}")
            _progress("")
            medians[name][family] = min(statistics.median(found), LIMIT)
            cell = f"{medians[name][family]:.2f} ({sum(map(math.isinf, found))})"
            row += f"{cell:>17s}"
        print(row, flush=True)
    synthetic = [family for family in families if family != "mnist"]
    if len(synthetic) > 1:
        means = {name: statistics.mean(medians[name][family] for family in synthetic) for name in names}
        print(f"{'mean':10s}" + "".join(f"{mean:17.2f}" for mean in means.values()))
        print(f"{'ratio':10s}" + "".join(f"{means[names[0]] / mean:17.2f}" for mean in means.values()))
    if "mnist" in families:
        ratios = (medians[names[0]]["mnist"] / medians[name]["mnist"] for name in names)
        print(f"{'mnist':10s}" + "".join(f"{ratio:17.2f}" for ratio in ratios))
    print(f"a median over {LIMIT:g} counts as {LIMIT:g}; ratio: the first column's cost over theirs")


def _progress(said: str) -> None:
    """Show how far it is on standard error; nothing clears the line."""
    print("\r" + said.ljust(60) + ("" if said else "\r"), end="", file=sys.stderr, flush=True)


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
            values = landscape.curve(size, rate, number, {})[:last]
            curve = {epoch: (float(value), 1.0) for epoch, value in enumerate(values, start=1)}
            state = "complete" if last == landscape.max_epochs else "paused"
            scheduler.add(Trial(number, size, rate, curve=curve, state=state))
        began = time.perf_counter()
        scheduler.next()
        times.append(time.perf_counter() - began)
    return sorted(times)


def set_constants(settings: Sequence[str]) -> None:
    """Set constants of the search, each as `decision.NAME=VALUE`: for what would be otherwise."""
    for setting in settings:
        name, _, value = setting.partition("=")
        module, _, constant = name.rpartition(".")
        found = importlib.import_module(f"batchopt.search.{module}")
        if not hasattr(found, constant):
            raise SystemExit(f"--set {setting}: {found.__name__} has no {constant}.")
        setattr(found, constant, json.loads(value))


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, help="of each family (50; 10 with --quick), or of each real problem (3)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first study; the others follow")
    parser.add_argument("--families", default=",".join((*FAMILIES, "mnist")), help="comma-separated")
    parser.add_argument("--rivals", help=f"comma-separated, of {', '.join(RIVALS)}; 'none' for none")
    parser.add_argument("--only", help="these searches and not ours, comma-separated")
    parser.add_argument("--quick", action="store_true", help="10 studies, without the rivals that are slow")
    parser.add_argument("--workers", type=int, default=1, help="parallel workers of our scheduler; rivals have one")
    parser.add_argument("--curves", action="store_true", help="real curves instead of the families")
    parser.add_argument("--answers", action="store_true", help="how good the answers are on real curves")
    parser.add_argument("--noise", type=float, default=0.0, help="of real curves' runs, in parts of the range")
    parser.add_argument("--half", choices=["a", "b"], default="", help="of the data sets of real curves")
    parser.add_argument("--stride", type=int, default=1, help="every so many of the problems")
    parser.add_argument("--each", action="store_true", help="print every study of real curves")
    parser.add_argument("--keep", type=Path, help="a file of what was found, to go on from")
    parser.add_argument("--set", action="append", default=[], help="a constant of the search, as decision.NAME=VALUE")
    options = parser.parse_args()
    set_constants(options.set)
    names = [OURS, *(name for name in RIVALS if not (options.quick and name in SLOW))]
    if options.rivals is not None:
        names = [OURS] if options.rivals == "none" else [OURS, *options.rivals.split(",")]
    if options.only is not None:
        names = options.only.split(",")
    unknown = [name for name in names if name not in SEARCHES]
    unknown += [family for family in options.families.split(",") if family.split("+")[0] not in (*FAMILIES, "mnist")]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    if options.answers:
        real_answers(options)
        return
    if options.curves:
        real_curves(names, options)
        return
    for trials in (30, 300):
        times = decision_times(trials)
        print(
            f"a decision with {trials} trials: median {1e3 * statistics.median(times):.0f} ms, "
            f"slowest of {len(times)} {1e3 * times[-1]:.0f} ms"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB, before any rival runs")
    studies = options.studies or (10 if options.quick else 50)
    table(options.families.split(","), names, studies, options.first, options.workers)


if __name__ == "__main__":
    main()
