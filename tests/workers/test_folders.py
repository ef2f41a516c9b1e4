"""The folders of workers: removed when nobody uses them any more, whoever was killed, and no others."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from batchopt.workers.folders import PREFIX, WorkerFolder

HOLDS = """
import subprocess, sys
from batchopt.workers.folders import WorkerFolder

folder = WorkerFolder()
worker = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, pass_fds=[folder.lock])
print(folder.path, worker.pid, flush=True)
sys.stdin.readline()
"""


def test_a_folder_goes_when_its_study_and_its_worker_were_both_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    study = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert study.stdout is not None
    path, worker = study.stdout.readline().split()
    held = Path(path)
    (held / "left by TensorFlow").mkdir()
    (foreign := tmp_path / f"{PREFIX}without-a-lock").mkdir()
    (link := tmp_path / f"{PREFIX}link").symlink_to(foreign)
    WorkerFolder().remove()
    assert held.is_dir()
    study.kill()
    study.communicate()
    # The worker lives on for a moment.
    WorkerFolder().remove()
    assert held.is_dir()
    subprocess.run(["kill", "-9", worker], check=True)
    while Path(f"/proc/{worker}/fd").exists() and any(Path(f"/proc/{worker}/fd").iterdir()):
        pass
    WorkerFolder().remove()
    assert sorted(tmp_path.iterdir()) == sorted([foreign, link])
