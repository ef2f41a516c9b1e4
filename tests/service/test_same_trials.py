"""The same study, whoever drives it: a session in a process, jobs over HTTP, and a command choose the same trials."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from batchopt.machine.machine import Machine
from batchopt.measured import Epoch
from batchopt.question.goal import Goal
from batchopt.question.options import Budget, Options
from batchopt.question.space import SearchSpace
from batchopt.question.task import ProgramStamp
from batchopt.report.answer.reading import read_study
from batchopt.store.stamp import Stamp
from batchopt.study.session import Session
from commands import run_command
from serving import ask_for, say

SIZES, RATES, EPOCHS, EXAMPLES, TRIALS, SEED = [16, 64, 256], (1e-4, 1e-1), 8, 1000, 6, 3
MACHINE = Machine("abacus", "cpu", "abacus", cores=0, memory_bytes=0, versions={})

SCRIPT = """
import json, math, os, sys
size, rate, state, until = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
first = 1 + (int(open(state).read()) if os.path.exists(state) else 0)
for epoch in range(first, until + 1):
    value = (1 - 0.5**epoch) / (1 + abs(math.log10(rate) + 2) + size / 1000)
    print(json.dumps({"accuracy": value, "seconds": 100 / size}), flush=True)
open(state, "w").write(str(until))
"""


def accuracy(size: int, rate: float, epoch: int) -> float:
    return (1 - 0.5**epoch) / (1 + abs(math.log10(rate) + 2) + size / 1000)


def chosen(storage: str, study: str) -> list[tuple[Any, ...]]:
    """What was trained, and how far."""
    trials = read_study(storage, study)
    return [(trial.batch_size, trial.learning_rate, len(trial.epochs), trial.state) for trial in trials]


def by_session(storage: str) -> None:
    program = ProgramStamp("", "", EXAMPLES, 0, "accuracy", "maximize")
    stamp = Stamp(SearchSpace(SIZES, RATES), Goal(epochs=EPOCHS), program, seed=SEED, search="auto")
    budget, options = Budget(trials=TRIALS), Options(seed=SEED)
    with Session.open("session", storage, stamp, options=options, budget=budget) as session:
        session.ledger.add_machine(MACHINE, "job")
        while (step := session.ask()) is not None:
            for epoch in range(step.from_epoch + 1, step.until_epoch + 1):
                value, seconds = accuracy(step.batch_size, step.learning_rate, epoch), 100 / step.batch_size
                session.tell(
                    step.trial,
                    MACHINE,
                    Epoch(epoch, None, math.nan, None, value, seconds, 0.0, 1, EXAMPLES / seconds),
                )
            session.let_go(step.trial)
        session.end()


def by_http(service: httpx.Client, study: str) -> None:
    question = {
        "batch_sizes": SIZES,
        "learning_rates": list(RATES),
        "metric": "accuracy",
        "epochs": EPOCHS,
        "examples": EXAMPLES,
        "trials": TRIALS,
        "seed": SEED,
    }
    assert service.put(study, json=question).status_code == 201
    while service.post(f"{study}/trials:ask", json={"client_id": "one", "can_pause": True}).status_code == 200:
        # Asked again it is the same step.
        step = ask_for(service, study, "one", can_pause=True)
        for epoch in range(step["from_epoch"] + 1, step["until_epoch"] + 1):
            value, seconds = accuracy(step["batch_size"], step["learning_rate"], epoch), 100 / step["batch_size"]
            say(service, study, step, "/epochs", {"epoch": epoch, "value": value, "seconds": seconds})
        say(service, study, step, ":release")


def by_command(folder: Path) -> None:
    (folder / "train.py").write_text(SCRIPT)
    space = ["--batch-sizes", "16,64,256", "--learning-rates", "1e-4..1e-1", "--metric", "accuracy"]
    counts = ["--epochs", str(EPOCHS), "--examples", str(EXAMPLES), "--trials", str(TRIALS), "--seed", str(SEED)]
    command = [sys.executable, "train.py", "{batch_size}", "{learning_rate}", "{checkpoint}", "{until_epoch}"]
    done = run_command(["batchopt", "tune", "--storage", "tune.db", *space, *counts, "--", *command], folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_whoever_drives_a_study_the_same_trials_are_chosen(
    service: httpx.Client, database: Path, tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path}/session.db"
    by_session(storage)
    by_http(service, "/v1/studies/same")
    by_command(tmp_path)
    expected = chosen(storage, "session")
    assert len(expected) == TRIALS and len({epochs for _, _, epochs, _ in expected}) > 1
    assert chosen(f"sqlite:///{database}", "same") == expected
    assert chosen(str(tmp_path / "tune.db"), "tune") == expected
