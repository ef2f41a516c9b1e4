"""How fast a trial trains: our epochs against Keras' own `fit`, same model, data, order of work and validation.

    python tests/benchmarks/trial_speed.py [--batch-sizes 8,32,128] [--rounds 3]

For each batch size the contenders take turns, A B C A B C ..., in one process; every one of them is compiled and warm
before the clock starts. What is printed are medians of the rounds and ratios of these; below 1 Keras is the faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from batchopt import Task
from batchopt.datasets import load_mnist
from batchopt.training.probe import choose_engine
from batchopt.training.resident import Resident
from reference import build_model
from rich.console import Console
from rich.table import Table

LEARNING_RATE = 1e-3
TARGETS = {8: (10, 3), 32: (10, 3), 128: (5, 2.5), 512: (2.5, None), 2048: (1.5, None), 8192: (1.5, None)}
"""What must be reached against `fit` with defaults, and against `fit` tuned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", default=",".join(map(str, TARGETS)))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()

    data = load_mnist().split()
    (x, y), validation = data.train, data.validation
    resident = Resident(data)
    program, timings = choose_engine(Task(build_model, load_mnist), resident, learning_rate=LEARNING_RATE, extra={})
    start = program.state()
    console.print(f"engine {program.engine.name}; {os.cpu_count()} cores; keras {keras.__version__}; {timings}")

    table = Table(box=None, title=f"seconds per epoch of {len(x)} and validation, medians of {options.rounds}")
    for name in ("batch size", "ours", "compiled in", "fit", "fit tuned", "x fit", "goal", "x fit tuned", "goal "):
        table.add_column(name, justify="right")
    for batch_size in map(int, options.batch_sizes.split(",")):
        # An epoch of fit at small batch sizes takes as long as five at large ones.
        epochs = 1 if batch_size < 128 else 5
        compile_seconds = program.prepare(batch_size)
        program.load(start)

        def ours(batch_size: int = batch_size, epochs: int = epochs) -> None:
            for epoch in range(1, epochs + 1):
                program.epoch(epoch, batch_size=batch_size, rng=np.random.default_rng(epoch))

        def fit(model: keras.Model, batch_size: int = batch_size, epochs: int = epochs) -> None:
            model.fit(x, y, batch_size=batch_size, epochs=epochs, validation_data=validation, verbose=0)

        plain, tuned = build_model(LEARNING_RATE), build_model(LEARNING_RATE)
        tuned.compile(
            keras.optimizers.Adam(LEARNING_RATE),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=True,
            steps_per_execution=64,
        )
        contenders: dict[str, Callable[[], None]] = {
            "ours": ours,
            "fit": lambda model=plain: fit(model),
            "fit tuned": lambda model=tuned: fit(model),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for model in (plain, tuned):
            model.fit(x, y, batch_size=batch_size, epochs=1, validation_data=validation, verbose=0)
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                started = time.perf_counter()
                contender()
                seconds[name].append((time.perf_counter() - started) / epochs)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        goals = TARGETS.get(batch_size, (None, None))
        table.add_row(
            str(batch_size),
            f"{median['ours']:.3f}",
            f"{compile_seconds:.2f}",
            f"{median['fit']:.3f}",
            f"{median['fit tuned']:.3f}",
            f"{median['fit'] / median['ours']:.1f}",
            "" if goals[0] is None else f"{goals[0]:g}",
            f"{median['fit tuned'] / median['ours']:.1f}",
            "" if goals[1] is None else f"{goals[1]:g}",
        )
        console.print(f"batch size {batch_size}: {median}", style="dim")
    console.print(table)

    compile_seconds = program.prepare(1)
    program.load(start)
    epoch = program.epoch(1, batch_size=1, rng=np.random.default_rng(1))
    console.print(
        f"batch size 1: {epoch.steps} steps in {epoch.train_seconds:.2f} s (goal: under 6), "
        f"compiled in {compile_seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
