"""A study in a real database, written through the ledger as a session writes it; only the training is left out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import optuna
from batchopt import Goal, SearchSpace
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.question.space import BATCH_SIZE, LEARNING_RATE
from batchopt.question.task import ProgramStamp
from batchopt.store.database import Database, open_database
from batchopt.store.ledger import Ledger
from batchopt.store.stamp import Stamp

SPACE = SearchSpace([16, 64, 256], (1e-4, 1e-1))
GOAL = Goal(epochs=2)
PROGRAM = ProgramStamp("model-hash", "data-hash", train_examples=1000, validation_examples=200, metric="accuracy")
STAMP = Stamp(SPACE, GOAL, PROGRAM, seed=3, search="tpe")
MACHINE = Machine("Abacus", "cpu", "Abacus", cores=2, memory_bytes=8 << 30, versions={"tensorflow": "2.21.0"})
EPOCH = Epoch(
    epoch=1,
    train_loss=0.5,
    train_value=0.8,
    validation_loss=0.25,
    value=0.9,
    train_seconds=2.0,
    evaluation_seconds=0.125,
    steps=63,
    examples_per_second=500.0,
)
"""Binary fractions, so that sums are exact."""


def epoch(number: int, value: float = 0.9, **figures: float) -> Epoch:
    return dataclasses.replace(EPOCH, epoch=number, value=value, **figures)


def new_study(database: Database, name: str = "mnist") -> optuna.Study:
    study = optuna.create_study(study_name=name, storage=database.storage, direction="maximize")
    STAMP.write(study)
    return study


def begin(ledger: Ledger, batch_size: int, learning_rate: float = 0.01) -> int:
    """Ask Optuna for a trial of these values, and own it; returns its number."""
    ledger.study.enqueue_trial({BATCH_SIZE: batch_size, LEARNING_RATE: learning_rate})
    number = ledger.study.ask(SPACE.distributions()).number
    ledger.begin(number)
    return number


def write_study(storage: Path, name: str = "mnist") -> None:
    """Six trials: 0 and 1 complete, 2 pruned, 3 diverged, 4 out of memory, 5 running."""
    database = open_database(str(storage), create=True)
    ledger = Ledger(database, new_study(database, name))
    ledger.add_machine(MACHINE, "fused")
    for number, (batch_size, accuracies) in enumerate(
        [(16, [0.75, 0.875]), (64, [0.875, 0.9375]), (256, [0.5]), (256, [0.25]), (256, []), (16, [0.625])]
    ):
        assert begin(ledger, batch_size) == number
        for at, accuracy in enumerate(accuracies, start=1):
            loss = float("nan") if number == 3 else 0.5
            ledger.add_epoch(number, MACHINE, epoch(at, accuracy, train_loss=loss), compile_seconds=0.0)
    ledger.complete(0, 0.875)
    ledger.complete(1, 0.9375)
    ledger.prune(2)
    ledger.diverge(3)
    ledger.exceed_memory(4, bytes_over=1.0)
    ledger.set_elapsed(12.5)
    ledger.release()
    database.db.dispose()


def write_studies(storage: Path) -> None:
    """Three studies: `default` of many batch sizes, `tiny` of three trials, `regression` of an error."""
    database = open_database(str(storage), create=True)
    sizes = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
    for name, trials, metric, direction in (
        ("default", 30, "accuracy", "maximize"),
        ("tiny", 3, "accuracy", "maximize"),
        ("regression", 20, "mae", "minimize"),
    ):
        program = dataclasses.replace(PROGRAM, metric=metric, direction=direction, train_examples=10_000)
        space, goal = SearchSpace(sizes, (1e-4, 1e-1)), Goal(epochs=5)
        study = optuna.create_study(study_name=name, storage=database.storage, direction=direction)
        Stamp(space, goal, program, seed=3, search="tpe").write(study)
        ledger = Ledger(database, study)
        ledger.add_machine(MACHINE, "fused")
        for at in range(trials):
            size, rate = sizes[at * 4 % len(sizes)], 10.0 ** (-3.5 + 0.4 * (at % 7))
            off = math.log10(rate / 1e-3) - 0.5 * math.log10(size / 32)
            study.enqueue_trial({BATCH_SIZE: size, LEARNING_RATE: rate})
            number = study.ask(space.distributions()).number
            ledger.begin(number)
            final = 0.03 + 0.02 * off**2 + 0.002 * abs(math.log2(size / 64)) + 0.001 * math.sin(at)
            for number_of_epoch in range(1, 6):
                error = final + 0.1 / number_of_epoch**2
                value = error if metric == "mae" else 1 - error
                seconds = 0.2 + 20 / size
                told = epoch(number_of_epoch, value, train_seconds=seconds, examples_per_second=10_000 / seconds)
                ledger.add_epoch(number, MACHINE, told, compile_seconds=0.0)
            ledger.complete(number, value)
        ledger.release()
    database.db.dispose()
