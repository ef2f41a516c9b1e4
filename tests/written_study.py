"""A study in a real database, written through the ledger as a session writes it; only the training is left out."""

from __future__ import annotations

import dataclasses
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
