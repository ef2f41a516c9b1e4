"""`batchopt new`: scripts that run as they are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from batchopt.cli.batchopt import batchopt
from click.testing import CliRunner
from commands import run_command

STUDIES = ["", "--regression", "--tf-data", "--custom-step"]
KINDS = [*STUDIES, "--command"]


def new(folder: Path, *options: str) -> tuple[int, str]:
    ended = CliRunner().invoke(batchopt, ["new", str(folder / "mine.py"), *options])
    return ended.exit_code, ended.output if ended.exception is None else str(ended.exception)


@pytest.mark.parametrize("kind", KINDS)
def test_a_script_is_whole_and_in_the_style_of_ours(kind: str, tmp_path: Path) -> None:
    code, said = new(tmp_path, *kind.split())
    assert code == 0 and "python" in said
    text = (tmp_path / "mine.py").read_text()
    left = set(re.findall(r"{\w+}", text.split('"""')[1]))
    assert left == ({"{batch_size}", "{learning_rate}", "{epochs}"} if kind == "--command" else set())
    assert "python mine.py" in text and "--study mine" in text
    linted = [sys.executable, "-m", "ruff", "check", "--ignore", "D,B905,INP001", "--line-length", "120", "mine.py"]
    done = subprocess.run(linted, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", ["--regression", *(pytest.param(kind, marks=pytest.mark.slow) for kind in STUDIES)])
def test_it_runs_as_it_is(kind: str, tmp_path: Path) -> None:
    assert new(tmp_path, *kind.split())[0] == 0
    engine = ["--engine", "fit" if kind == "--tf-data" else "fused"]
    options = ["--trials", "1", "--epochs", "1", "--train-examples", "2000", "--batch-sizes", "64,128", "--no-probe"]
    done = run_command(["mine.py", *options, *engine, "--device", "cpu"], tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Use batch size" in done.stdout
    assert ("validation mae" in done.stdout.lower()) == (kind == "--regression")


@pytest.mark.slow
def test_a_command_is_searched_by_the_line_that_it_shows(tmp_path: Path) -> None:
    assert new(tmp_path, "--command")[0] == 0
    shown = (tmp_path / "mine.py").read_text().split('"""')[1]
    line = next(part for part in shown.replace("\\\n", " ").splitlines() if "batchopt tune" in part)
    _, *arguments = shlex.split(line.replace("--epochs 5", "--epochs 1").replace("python", sys.executable))
    asked = ["tune", "--trials", "2", "--quiet", *arguments[1:]]
    ended = run_command(["batchopt", *asked], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Use batch size" in ended.stdout and "validation" in ended.stdout


def test_nothing_is_replaced_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")
    code, said = new(tmp_path)
    assert code == 1 and "is there already. Use --force" in said
    assert (tmp_path / "mine.py").read_text() == "precious"
    assert new(tmp_path, "--force")[0] == 0
    assert new(tmp_path / "no" / "such")[0] != 0
