"""Whether a small model's epochs take in a study what they take alone.

    python tests/benchmarks/small_models.py [--rounds 12] [--problems digits,images] [--engines fused]

A study's worker trains trials of three epochs, their batch sizes in random order, as a study does: each trial begins
with a model of its own, built and seeded. After each trial the same program runs as many epochs in a tight loop, so
that both see the same machine: trial, loop, trial, loop, and so on. Printed for each batch size are

- the 95th percentile of a trial's epochs over their median (goal: under 1.5), and beside it the loop's own, which is
  what the machine itself varies by: where others work on it, the goal cannot be met by a program alone either;
- the median of first epochs over that of later ones, which others on the machine disturb less;
- the median of a trial's epochs over the median of the loop's (goal: within 15 %).
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from batchopt import Dataset, Task
from batchopt.measured import EngineName
from batchopt.training.messages import EpochDone, Setup, Train
from batchopt.training.worker import Trainer
from rich.console import Console
from rich.table import Table

EPOCHS = 3
BATCH_SIZES = (8, 16, 32, 64, 128, 256, 512)
MOST_SPREAD, MOST_EXCESS = 1.5, 0.15


def digits(learning_rate: float) -> Any:
    import keras

    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def regression(learning_rate: float) -> Any:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "mse", metrics=["r2_score"])
    return model


def images(learning_rate: float) -> Any:
    import keras

    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.MaxPooling2D(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def digits_data(path: str | None) -> Dataset:
    x = np.random.default_rng(0).random((1437, 64), np.float32)
    return Dataset(train=(x, x[:, :10].argmax(1)))


def regression_data(path: str | None) -> Dataset:
    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    return Dataset(train=(x, np.sin(x[:, :1]) + x[:, 1:2]))


def images_data(path: str | None) -> Dataset:
    x, y = digits_data(path).train
    return Dataset(train=(x.reshape(-1, 8, 8, 1), y))


PROBLEMS = {
    "digits": Task(digits, digits_data),
    "regression": Task(regression, regression_data, metric="r2_score"),
    "images": Task(images, images_data),
}

Seconds = dict[int, list[float]]
"""Of each epoch, by batch size."""


def measured(task: Task, engine: EngineName, rounds: int) -> tuple[Seconds, Seconds]:
    """Epochs of trials, and of the same programs alone."""
    trainer = Trainer(Setup(task, None, None, "cpu", None, engine, 1e-3))
    rng = np.random.default_rng(0)
    in_trials: Seconds = {size: [] for size in BATCH_SIZES}
    alone: Seconds = {size: [] for size in BATCH_SIZES}
    order = [int(size) for _ in range(rounds) for size in rng.permutation(BATCH_SIZES)]
    for trial, size in enumerate([*BATCH_SIZES, *order]):
        answers = list(trainer.answer(Train(trial, 0, size, 1e-3, {}, 0, EPOCHS)))
        if trial < len(BATCH_SIZES):
            continue  # compiled for the first time
        in_trials[size] += [answer.figures.train_seconds for answer in answers if isinstance(answer, EpochDone)]
        for _ in range(EPOCHS):
            started = time.perf_counter()
            trainer._programs.current.engine.train(rng, size)
            alone[size].append(time.perf_counter() - started)
    return in_trials, alone


def spread(seconds: list[float]) -> float:
    return float(np.quantile(seconds, 0.95) / np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--engines", default="fused,fused-xla")
    options = parser.parse_args()
    console = Console()
    missed = 0
    for problem in options.problems.split(","):
        for engine in options.engines.split(","):
            in_trials, alone = measured(PROBLEMS[problem], engine, options.rounds)
            table = Table(box=None, title=f"{problem}, engine {engine}: {EPOCHS * options.rounds} epochs of each size")
            for name in ("batch size", "median, ms", "p95/median", "alone", "first/later", "over alone", "met"):
                table.add_column(name, justify="right")
            for size in BATCH_SIZES:
                trials, loop = in_trials[size], alone[size]
                later = [seconds for number, seconds in enumerate(trials) if number % EPOCHS]
                ratio = float(np.median(trials) / np.median(loop))
                met = spread(trials) < MOST_SPREAD and abs(ratio - 1) <= MOST_EXCESS
                missed += not met
                table.add_row(
                    str(size),
                    f"{1e3 * np.median(trials):.2f}",
                    f"{spread(trials):.2f}",
                    f"{spread(loop):.2f}",
                    f"{np.median(trials[::EPOCHS]) / np.median(later):.2f}",
                    f"{ratio:.2f}",
                    "yes" if met else "no",
                )
            console.print(table)
    console.print(f"{missed} batch sizes miss a goal")


if __name__ == "__main__":
    main()
