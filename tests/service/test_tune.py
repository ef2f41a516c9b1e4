"""`batchopt tune`: real commands, as a shell starts them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batchopt.report.answer.reading import read_study
from commands import Running, run_command

SCRIPT = """
import json, math, os, signal, sys, time
size, rate, epochs, mode, log = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
with open(log, "a") as file:
    print(os.getpid(), size, file=file)
if mode == "oom" and size > 16:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "raises":
    raise ValueError("no such file")
for epoch in range(1, epochs + 1):
    if mode == "slow":
        time.sleep(0.5)
    value = (1 - 0.5**epoch) / (1 + abs(math.log10(rate) + 2) + size / 1000)
    print("some words of the framework's own")
    print(f"epoch {epoch}: acc={value}" if mode == "words" else json.dumps({"acc": value, "seconds": 1.0}), flush=True)
"""


def tune(folder: Path, mode: str, *options: str) -> list[str]:
    (folder / "train.py").write_text(SCRIPT)
    question = ["--storage", f"sqlite:///{folder}/s.db", "--batch-sizes", "16..64", "--metric", "acc", "--epochs", "3"]
    command = [sys.executable, "train.py", "{batch_size}", "{learning_rate}", "{epochs}", mode, "log"]
    more = ["--examples", "1000", "--trials", "4", "--lease", "5", *options]
    return ["batchopt", "tune", *question, *more, "--", *command]


def run(folder: Path, mode: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command(tune(folder, mode, *options), folder, timeout=90)


@pytest.mark.parametrize(("mode", "options"), [("json", ()), ("words", ("--read", r"acc=(\S+)"))])
def test_a_command_is_a_study(tmp_path: Path, mode: str, options: tuple[str, ...]) -> None:
    done = run(tmp_path, mode, "--workers", "2", *options)
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert [(trial.state, len(trial.epochs)) for trial in trials] == [("complete", 3)] * len(trials)
    assert "batch size" in done.stdout


def test_out_of_memory_is_knowledge(tmp_path: Path) -> None:
    done = run(tmp_path, "oom")
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert {trial.note for trial in trials if trial.batch_size > 16} <= {"out of memory"}
    assert any(trial.state == "complete" for trial in trials)


def test_a_command_killed_by_signal_9_is_tried_three_times(tmp_path: Path) -> None:
    done = run(tmp_path, "killed", "--trials", "1")
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    (trial,) = read_study(f"sqlite:///{tmp_path}/s.db")
    assert trial.state == "fail" and "signal 9" in trial.note, done.stderr


def test_a_command_that_raises_stops_the_study_with_its_own_words(tmp_path: Path) -> None:
    done = run(tmp_path, "raises")
    assert done.returncode == 1
    assert "ValueError: no such file" in done.stderr and "batchopt/study" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_study_is_resumed_by_the_same_command(tmp_path: Path, number: signal.Signals) -> None:
    process = Running(tune(tmp_path, "slow"), tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "log").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.8)
    process.signal(number)
    assert process.ended(30).returncode == (143 if number == signal.SIGTERM else -9)
    done = run(tmp_path, "json")
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert [(trial.state, len(trial.epochs)) for trial in trials] == [("complete", 3)] * 4


def test_what_cannot_be_a_command_is_refused_in_a_line(tmp_path: Path) -> None:
    base = tune(tmp_path, "json")
    for command, said in (([], "no command"), (["x", "{size}"], "{size}"), (["x", "{learning_rate}"], "{batch_size}")):
        arguments = [*base[: base.index("--") + 1], *command]
        done = run_command(arguments, tmp_path)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "s.db").exists()
