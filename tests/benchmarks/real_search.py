"""On real MNIST: training seconds until a good configuration is found, our search against TPE without pruning.

    python tests/benchmarks/real_search.py [--seeds 5] [--trials 30]

Both run as real studies, one after the other, on the reference model. A study has found a good configuration once it
has trained one to the end whose expected accuracy, read from the recorded table (mean over seeds, between learning
rates linear in their logarithm), is within 0.1 points of the table's best. A study that never does counts with all its
seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable

import numpy as np
from batchopt import Budget, Goal, Options, Study, Task
from batchopt.datasets import load_mnist
from batchopt.events import Event, Trained, TrialEnded
from record_table import SPACE, TABLE
from reference import build_model
from rich.console import Console

EPOCHS = 5
WITHIN = 0.001
CONTENDERS = {"auto": Options(search="auto"), "tpe": Options(search="tpe", prune=False)}


class Watch:
    """Adds up training seconds, in the order they were spent, until the first good trial ends."""

    def __init__(self, good: Callable[[int, float], bool]) -> None:
        self._good = good
        self.spent = 0.0
        self.found: float | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Trained):
            self.spent += event.figures.train_seconds
        elif isinstance(event, TrialEnded) and event.state == "complete" and self.found is None:
            self.found = self.spent if self._good(event.batch_size, event.learning_rate) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    options = parser.parse_args()
    console = Console()
    with np.load(TABLE) as table:
        sizes = table["batch_sizes"].tolist()
        log_rates = np.log(table["learning_rates"])
        accuracy = np.nan_to_num(table["val_accuracy"][..., EPOCHS - 1], nan=0.1).mean(-1)
    console.print(f"best of the table after {EPOCHS} epochs: {accuracy.max():.4f}")

    def good(batch_size: int, learning_rate: float) -> bool:
        expected = np.interp(np.log(learning_rate), log_rates, accuracy[sizes.index(batch_size)])
        return bool(expected >= accuracy.max() - WITHIN)

    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for seed in range(options.seeds):
        for name, chosen in CONTENDERS.items():
            watch = Watch(good)
            with tempfile.TemporaryDirectory() as folder:
                study = Study(
                    Task(build_model, load_mnist),
                    SPACE,
                    Goal(epochs=EPOCHS),
                    storage=f"{folder}/studies.db",
                    options=Options(search=chosen.search, prune=chosen.prune, seed=seed),
                )
                report = study.run(Budget(trials=options.trials, until_known=False), listener=watch)
            assert report.recommendation is not None
            seconds[name].append(watch.spent if watch.found is None else watch.found)
            console.print(
                f"seed {seed}, {name}: {'not found in' if watch.found is None else 'found after'} "
                f"{seconds[name][-1]:.1f} s of {watch.spent:.1f} s trained; "
                f"{report.recommendation.batch_size} x {report.recommendation.learning_rate:.2g} "
                f"{report.recommendation.value:.4f}"
            )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    console.print(
        f"median seconds: auto {medians['auto']:.1f}, tpe without pruning {medians['tpe']:.1f}; "
        f"ratio {medians['auto'] / medians['tpe']:.2f} (goal: at most 0.33)"
    )


if __name__ == "__main__":
    main()
