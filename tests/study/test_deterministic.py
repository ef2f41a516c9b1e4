"""`--deterministic`, really done: a study that is killed again and again is the study that was not, to the last bit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from batchopt.store.database import open_database
from batchopt.store.tables import epochs_table, leases_table, machines_table, memory_table, step_times_table
from commands import worker_processes

STUDY = Path(__file__).parents[2] / "studies" / "mnist.py"
OPTIONS = ["--deterministic", "--device", "cpu", "--batch-sizes", "16..512", "--train-examples", "6000"]
EPOCHS = 16
FIGURES = ("train_loss", "train_value", "validation_loss", "value", "steps")
LEAST_KILLS = 8


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(STUDY), "--storage", str(folder / "studies.db"), *OPTIONS, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(folder: Path, *options: str) -> None:
    process = start(folder, *options)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said


def with_the_measurements_of(measured: Path, folder: Path) -> None:
    """A database that holds what was measured of this machine, and no study."""
    source = open_database(str(measured / "studies.db"), create=False)
    target = open_database(str(folder / "studies.db"), create=True)
    with source.db.connect() as reading, target.db.begin() as writing:
        for table in (machines_table, step_times_table, memory_table):
            rows = [dict(row) for row in reading.execute(sa.select(table)).mappings()]
            assert rows
            writing.execute(table.insert(), rows)
    source.db.dispose()
    target.db.dispose()


def strike(process: subprocess.Popen[str], chance: random.Random) -> int:
    """Signal 9 for the worker, or for its parent, or for both, at a random moment after the study was opened.

    Returns:
        How often, before the study was done.
    """
    assert process.stdout is not None
    while line := process.stdout.readline():
        if line.startswith("engine"):
            break
    time.sleep(chance.uniform(0.1, 3.0))
    whom, kills = chance.choice(["parent", "worker", "both"]), 0
    if process.poll() is None:
        workers = worker_processes(process.pid)
        if whom != "worker":
            process.kill()
        if whom != "parent":
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[0].pid, signal.SIGKILL)
        kills += 1
    if whom == "worker":
        # The parent too, when the next worker is starting or trains.
        time.sleep(chance.uniform(2.0, 8.0))
        kills += process.poll() is None
        process.kill()
    process.communicate(timeout=600)
    return kills


def history(folder: Path) -> list[tuple[Any, ...]]:
    """All that is to be the same."""
    storage = f"sqlite:///{folder}/studies.db"
    with sa.create_engine(storage).connect() as connection:
        assert connection.execute(sa.select(leases_table)).all() == []
        rows = connection.execute(sa.select(epochs_table).order_by(epochs_table.c.epoch)).mappings().all()
    trials = optuna.load_study(study_name="mnist", storage=storage).trials
    assert all(trial.user_attrs["deterministic"] for trial in trials)
    return [
        (
            trial.number,
            trial.state.name,
            trial.params,
            trial.values,
            trial.intermediate_values,
            [[row[name] for name in FIGURES] for row in rows if row["trial_id"] == trial._trial_id],
        )
        for trial in trials
    ]


@pytest.mark.slow
@pytest.mark.parametrize("search", ["auto", "tpe"])
def test_a_deterministic_study_that_is_killed_at_random_is_the_study_that_was_not(tmp_path: Path, search: str) -> None:
    """Trials, parameters, states, values and every figure of every epoch, compared with `==`."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    options = ["--search", search, "--trials", "8", "--epochs", str(EPOCHS)]
    finished(whole, *options)
    with_the_measurements_of(whole, killed)
    chance, kills = random.Random(7), 0
    while kills < LEAST_KILLS:
        process = start(killed, *options)
        kills += strike(process, chance)
        if process.returncode == 0:
            break
    finished(killed, *options)
    print(f"{kills} kills")
    assert kills >= 3
    assert history(killed) == history(whole)
