"""The main job as a user meets it: the default study's wall time, and a worker's memory over 100 trials.

python tests/benchmarks/main_job.py [--studies 3] [--trials 100]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from batchopt import Task
from batchopt.datasets import load_mnist
from batchopt.training.messages import EpochDone, Ready, Setup, Train
from batchopt.workers.client import Worker
from reference import build_model
from rich.console import Console

SCRIPT = Path(__file__).parents[2] / "studies" / "mnist.py"
LADDER = [2**k for k in range(3, 14)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    console = Console()
    walls, accuracies = [], []
    for seed in range(options.studies):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            command = [sys.executable, str(SCRIPT), "--storage", f"{folder}/studies.db", "--seed", str(seed), "--json"]
            finished = subprocess.run(command, check=True, capture_output=True, text=True)
            walls.append(time.perf_counter() - started)
        report = json.loads(finished.stdout)
        accuracies.append(report["recommendation"]["value"])
        console.print(f"seed {seed}: {walls[-1]:.1f} s, {report['trials']}, {report['recommendation']}")
    console.print(
        f"default study, start to end: median {statistics.median(walls):.1f} s, worst {max(walls):.1f} s (goal: 90); "
        f"accuracy {min(accuracies):.4f} to {max(accuracies):.4f} (goal: 0.975)"
    )
    grow(console, options.trials)


def grow(console: Console, trials: int) -> None:
    """One worker, one trial after another, over the whole ladder."""
    worker = Worker(Setup(Task(build_model, load_mnist), None, None, "auto", None, None, 1e-3))
    assert isinstance(worker.receive(), Ready)
    rng = np.random.default_rng(0)
    seen = []
    # Each batch size once, so that every program is compiled, and then what a study would do.
    for trial, size in enumerate([*LADDER, *rng.choice(LADDER, trials).tolist()]):
        worker.send(Train(trial, 0, size, float(10 ** rng.uniform(-4, -1)), {}, 0, 1))
        answer = worker.receive()
        assert isinstance(answer, EpochDone)
        seen.append(answer.worker_bytes / 2**20)
    worker.kill()
    compiled = seen[len(LADDER) - 1]
    console.print(
        f"worker: {seen[0]:.0f} MB after the first trial, {compiled:.0f} MB with all {len(LADDER)} programs compiled, "
        f"{seen[-1]:.0f} MB after {trials} trials more: growth {seen[-1] - compiled:.0f} MB (goal: under 150)"
    )


if __name__ == "__main__":
    main()
