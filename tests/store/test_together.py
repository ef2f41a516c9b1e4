"""Processes that begin in the same moment, on a database that is new or only Optuna's: all work on one study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROUNDS = 20
KINDS = ("sqlite", "postgresql", "mysql")


@pytest.mark.parametrize(
    ("kind", "there", "rounds"),
    [
        ("sqlite", "new", 1),
        ("postgresql", "optuna", 1),
        *(pytest.param(kind, there, ROUNDS, marks=pytest.mark.slow) for kind in KINDS for there in ("new", "optuna")),
    ],
)
def test_eight_processes_that_begin_together_work_on_one_study(kind: str, there: str, rounds: int) -> None:
    command = [sys.executable, "together.py", kind, str(rounds), there]
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        command, cwd=TESTS, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=3000
    )
    assert done.stdout == f"{rounds}\n", done.stderr


@pytest.mark.slow
def test_real_study_scripts_that_begin_together_share_one_study(tmp_path: Path) -> None:
    """The reference study, from four shells at once, on a database that is not there."""
    study = ["--storage", "studies.db", "--trials", "8", "--epochs", "1", "--search", "random", "--no-probe", "--quiet"]
    small = ["--train-examples", "2000", "--batch-sizes", "64..256", "--engine", "fused", "--device", "cpu"]
    command = [sys.executable, str(TESTS.parent / "studies/mnist.py"), *study, *small]
    processes = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    doctor = [
        sys.executable,
        "-c",
        "from batchopt.cli.batchopt import main; main()",
        "doctor",
        "--storage",
        "studies.db",
    ]
    found = subprocess.run(doctor, cwd=tmp_path, capture_output=True, text=True)
    assert (found.returncode, "8 trials in" in found.stdout) == (0, True), found.stdout
