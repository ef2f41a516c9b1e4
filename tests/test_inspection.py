"""`batchopt probe`: a machine measured with the program of a script, and what is wrong said in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

BATCHOPT = [sys.executable, "-c", "from optimizer.cli import main; main()", "probe"]
MLP = Path(__file__).parents[1] / "studies" / "mnist.py"


def probe(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATCHOPT, *options], cwd=folder, capture_output=True, text=True, timeout=240)


def test_a_machine_is_measured_with_the_program_of_a_script(tmp_path: Path) -> None:
    """Under a limit that holds a part of the range: what is said to fit is what the foreseen memory says."""
    options = ["--train-examples", "4000", "--batch-sizes", "8..full", "--memory-limit", "100MiB", "--device", "cpu"]
    done = probe(tmp_path, str(MLP), *options, "--engine", "fused-xla", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    machine = found["machine"]
    assert (machine["kind"], machine["gpus"], machine["driver"]) == ("cpu", 0, "")
    assert machine["memory_bytes"] <= psutil.virtual_memory().total
    assert 0 < machine["device_free_bytes"] <= machine["device_memory_bytes"]
    assert 1 <= machine["cores"] <= psutil.cpu_count()
    assert {"python", "tensorflow", "keras", "optuna"} <= set(machine["versions"])
    assert found["memory"]["capacity_bytes"] == 100 << 20
    assert found["engine"] == "fused-xla"

    rows = found["batch_sizes"]
    assert [row["batch_size"] for row in rows] == [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4000]
    needs = [row["memory_bytes"] for row in rows]
    assert needs == sorted(needs)
    assert all(row["fits"] == (row["memory_bytes"] <= 100 << 20) for row in rows)
    timed = [row for row in rows if row["step_time_s"] is not None]
    assert len(timed) >= 5
    assert all(row["spread_s"] >= 0 and row["seconds_per_epoch"] > 0 for row in timed)
    assert timed[0]["examples_per_second"] < timed[-1]["examples_per_second"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_script_the_reference_study_is_probed_and_shown(tmp_path: Path) -> None:
    done = probe(
        tmp_path, "--train-examples", "2000", "--batch-sizes", "32,256", "--device", "cpu", "--engine", "fused"
    )
    assert done.returncode == 0, done.stderr
    assert "101,770 parameters, 2,000 examples" in done.stdout
    assert "All of these batch sizes fit in memory" in done.stdout
    assert "no GPU" in done.stdout


def test_what_is_no_study_script_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "silent.py").write_text("x = 1\n")
    for script, says in [("missing.py", "script missing.py does not exist"), ("silent.py", "does not call run_script")]:
        done = probe(tmp_path, script)
        assert done.returncode == 2
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
