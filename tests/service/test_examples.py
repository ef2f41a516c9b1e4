"""The jobs on the pages run as they stand, each as the jobs of a study of its own."""

from __future__ import annotations

import importlib.util
import json
import re
import secrets
import subprocess
from pathlib import Path

import httpx
import pytest
from commands import run_command
from pages import ADDRESS, Block, all_blocks, blocks, imported

PYTHON = [block for block in all_blocks("python") if block.kind == "job"]
SHELL = [block for block in all_blocks("sh") if "trials:ask" in block.text]

TRIALS = 6
"""Of the study that the page makes."""


def marked(block: Block) -> object:
    """Slow where TensorFlow is loaded."""
    slow = [pytest.mark.slow] if "keras" in imported(block.text) else []
    return pytest.param(block, id=f"{block.page.stem}: {block.section}", marks=slow)


def made(block: Block, service: httpx.Client) -> tuple[str, str]:
    """A study that is made as the job's page makes it, and the job as one of this service and study."""
    name = f"example-{secrets.token_hex(4)}"
    questions = [re.search(r"-d \\\n +'(\{.*?\})'", each.text, re.DOTALL) for each in blocks(block.page, "sh")]
    (question,) = [found[1] for found in questions if found]
    assert service.put(f"/v1/studies/{name}", json=json.loads(question)).status_code == 201
    code = block.text.replace(ADDRESS, str(service.base_url).rstrip("/"))
    return name, code.replace('"mine"', f'"{name}"').replace("/studies/mine", f"/studies/{name}")


def ended(service: httpx.Client, name: str) -> list[str]:
    """The states of trials that have ended."""
    states = [trial["state"] for trial in service.get(f"/v1/studies/{name}/trials").json()]
    return [state for state in states if state in ("complete", "pruned")]


def check_answer(service: httpx.Client, name: str) -> None:
    report = service.get(f"/v1/studies/{name}/report").json()
    assert report["recommendation"]["batch_size"] in (16, 64, 256)
    assert "complete" in ended(service, name)


@pytest.mark.parametrize("block", [*map(marked, PYTHON)])
def test_a_job_trains_the_study_to_its_end(block: Block, service: httpx.Client, tmp_path: Path) -> None:
    for package in imported(block.text):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    name, code = made(block, service)
    (tmp_path / "job.py").write_text(code)
    while len(ended(service, name)) < TRIALS:
        before = len(ended(service, name))
        done = run_command(["job.py"], tmp_path, timeout=240)
        assert done.returncode == 0, done.stderr
        assert len(ended(service, name)) > before
    check_answer(service, name)
    if "while" not in code:
        # One that trains a single trial is told so by its exit code.
        done = run_command(["job.py"], tmp_path)
        assert done.returncode == 1 and "Done" in done.stderr


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.where)
def test_a_job_of_the_shell_trains_the_study_to_its_end(block: Block, service: httpx.Client, tmp_path: Path) -> None:
    name, script = made(block, service)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["recommendation"]["batch_size"] in (16, 64, 256), done.stderr
    assert len(ended(service, name)) == TRIALS
    check_answer(service, name)


def test_a_pytorch_script_becomes_a_trial_by_five_lines() -> None:
    (block,) = [block for block in PYTHON if "torch" in imported(block.text)]
    lines = [line for line in block.text.splitlines() if line.strip()]
    added = [line for line in lines if "# added" in line]
    assert len(added) == 5 and len(lines) <= 21


def test_there_are_jobs_in_three_frameworks_and_in_a_shell() -> None:
    assert {"torch", "keras", "numpy"} <= set().union(*(imported(block.text) for block in PYTHON))
    assert len(SHELL) == 1
