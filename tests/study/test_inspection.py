"""`batchopt probe`: a machine measured with the program of a script, and what is wrong said in one line."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

BATCHOPT = [sys.executable, "-c", "from batchopt.cli.batchopt import main; main()", "probe"]
REPORT = [*BATCHOPT[:-1], "report", "--storage", "studies.db", "--json"]
MLP = Path(__file__).parents[2] / "studies" / "mnist.py"


def probe(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATCHOPT, *options], cwd=folder, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
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


def as_if_trained_elsewhere(database: Path) -> str:
    """Make the one machine of a study another one, wherever it is named; returns what it was called before."""
    with closing(sqlite3.connect(database)) as connection, connection:
        ((fingerprint, description),) = connection.execute("SELECT fingerprint, description FROM batchopt_machines")
        there = json.dumps(json.loads(description) | {"processor": "Abacus", "device": "Abacus"})
        connection.execute("UPDATE batchopt_machines SET fingerprint = 'elsewhere', description = ?", [there])
        for table in ("batchopt_epochs", "batchopt_step_times", "batchopt_memory"):
            connection.execute(f"UPDATE {table} SET machine = 'elsewhere'")
        for key in ("engines", "memory_limits"):
            connection.execute(
                "UPDATE study_user_attributes SET value_json = replace(value_json, ?, 'elsewhere') WHERE key = ?",
                [fingerprint, key],
            )
    return str(fingerprint)


def content(database: Path) -> list[str]:
    """All that is in a database."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def report(folder: Path) -> dict[str, Any]:
    done = subprocess.run(REPORT, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.slow
def test_a_machine_that_trains_nothing_joins_a_study_that_was_trained_elsewhere(tmp_path: Path) -> None:
    """Before, the report is for the other machine; afterwards for this one. Another program joins nothing."""
    small = ["--train-examples", "2000", "--device", "cpu", "--engine", "fused"]
    asked = ["--storage", "studies.db", "--batch-sizes", "32,128,512", "--epochs", "2", "--trials", "3"]
    study = [sys.executable, str(MLP), *small, *asked]
    trained = subprocess.run(study, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert trained.returncode == 0, trained.stderr
    database = tmp_path / "studies.db"
    here = as_if_trained_elsewhere(database)
    before = report(tmp_path)
    assert (before["machine"]["processor"], before["elsewhere"], before["machines"]) == ("Abacus", True, [])

    untouched = content(database)
    refused = probe(tmp_path, str(MLP), "--storage", "studies.db", "--train-examples", "1000", "--device", "cpu")
    assert refused.returncode == 2
    assert "train examples 2000 and not 1000" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert content(database) == untouched

    joined = probe(tmp_path, str(MLP), "--storage", "studies.db", *small)
    assert joined.returncode == 0, joined.stderr
    assert "Kept with study mnist" in joined.stdout
    after = report(tmp_path)
    assert not after["elsewhere"]
    assert after["machine"]["processor"] != "Abacus"
    assert {machine["fingerprint"] for machine in after["machines"]} == {"elsewhere", here}
    assert after["trials"] == before["trials"]
    assert after["step_time"] is not None
    with closing(sqlite3.connect(database)) as connection:
        timed = connection.execute("SELECT batch_size FROM batchopt_step_times WHERE machine = ?", [here]).fetchall()
    assert {32, 128, 512} <= {size for (size,) in timed}
