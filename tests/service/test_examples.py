"""The examples of docs/jobs.md run as they stand, each as the jobs of a study of its own."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from pathlib import Path

import httpx
import pytest
from commands import run_command

PAGE = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()
ADDRESS = "http://127.0.0.1:8089"


@pytest.fixture
def name(service: httpx.Client) -> str:
    """A study that is made as the page makes it."""
    name = f"example-{secrets.token_hex(4)}"
    question = re.search(r"-d \\\n +'(\{.*?\})'", PAGE, re.DOTALL)
    assert question is not None
    assert service.put(f"/v1/studies/{name}", json=json.loads(question[1])).status_code == 201
    return name


def example(title: str, service: httpx.Client, name: str) -> str:
    """The code of a section, for this service and study."""
    code = PAGE.partition(f"## {title}")[2].partition("\n```")[2].partition("\n")[2].partition("\n```")[0]
    assert ADDRESS in code
    code = code.replace(ADDRESS, str(service.base_url).rstrip("/"))
    return code.replace('"mine"', f'"{name}"').replace("/studies/mine", f"/studies/{name}")


def ended(service: httpx.Client, name: str) -> list[str]:
    report = service.get(f"/v1/studies/{name}/report").json()
    assert report["recommendation"]["batch_size"] in (16, 64, 256)
    return [trial["state"] for trial in service.get(f"/v1/studies/{name}/trials").json()]


def test_numpy(service: httpx.Client, name: str, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(example("NumPy", service, name))
    done = run_command(["job.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert ended(service, name) == ["complete"] * 6


@pytest.mark.slow
def test_keras(service: httpx.Client, name: str, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(example("Keras", service, name))
    done = run_command(["job.py"], tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    assert set(ended(service, name)) == {"complete", "pruned"}


def test_a_shell(service: httpx.Client, name: str, tmp_path: Path) -> None:
    script = example("A shell", service, name)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["recommendation"]["batch_size"] in (16, 64, 256), done.stderr
    assert ended(service, name) == ["complete"] * 6


def test_pytorch(service: httpx.Client, name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    script = example("PyTorch", service, name)
    (tmp_path / "job.py").write_text(script)
    for _ in range(6):
        done = run_command(["job.py"], tmp_path)
        assert done.returncode == 0, done.stderr
    done = run_command(["job.py"], tmp_path)
    assert done.returncode == 1 and "Done" in done.stderr
    assert ended(service, name) == ["complete"] * 6


def test_a_pytorch_script_becomes_a_trial_by_five_lines() -> None:
    script = PAGE.partition("## PyTorch")[2].partition("```python\n")[2].partition("```")[0]
    lines = [line for line in script.splitlines() if line.strip()]
    added = [line for line in lines if "# added" in line]
    assert len(added) == 5 and len(lines) <= 21
