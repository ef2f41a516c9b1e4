"""The gradient noise scale beside the critical batch size, on the reference model, and what measuring it costs.

    python tests/benchmarks/noise.py [--studies 1] [--trials 30] [--report FILE...]

The critical batch size is fitted to the steps that the recorded table (`record_table.py`) takes to several targets: of
each batch size the rate that is soonest there, curves averaged over seeds. The noise scale is what default studies
measure while they train; `--report` takes the JSON of studies that were run already, instead.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from batchopt.search.laws import StepsLaw, fitted_steps_law
from families import TABLE
from rich.console import Console

SCRIPT = Path(__file__).parents[2] / "studies" / "mnist.py"
TRAIN_EXAMPLES = 50_000
TARGETS = (0.93, 0.95, 0.96, 0.97)


def epochs_to(target: float, curve: np.ndarray) -> float:
    """Linear between evaluations; infinite where the curve does not get there."""
    there = np.flatnonzero(curve >= target)
    if not len(there):
        return math.inf
    at = int(there[0])
    before = curve[at - 1] if at else 0.0
    return at + float((target - before) / (curve[at] - before))


def critical(target: float) -> tuple[StepsLaw | None, list[int]]:
    """The law of the steps to a target, and the batch sizes that got there."""
    with np.load(TABLE) as table:
        sizes, curves = table["batch_sizes"].tolist(), np.nan_to_num(table["val_accuracy"].mean(axis=2))
    soonest = {size: min(epochs_to(target, curve) for curve in rows) for size, rows in zip(sizes, curves, strict=True)}
    there = [size for size in sizes if math.isfinite(soonest[size])]
    steps = [soonest[size] * math.ceil(TRAIN_EXAMPLES / size) for size in there]
    return fitted_steps_law(there, steps), there


def study(seed: int, trials: int) -> dict[str, Any]:
    """The report of a default study."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), "--storage", f"{folder}/studies.db", "--json"]
        command += ["--seed", str(seed), "--trials", str(trials)]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--report", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    console = Console()
    for target in TARGETS:
        law, there = critical(target)
        fitted = "no law" if law is None else f"{law.critical_batch_size:.0f} ({law.low:.0f} to {law.high:.0f})"
        off = "" if law is None else f", worst off by {law.worst:.0%}"
        console.print(f"critical batch size to {target:.0%}: {fitted}{off}; batch sizes {there[0]} to {there[-1]}")
    reports = [json.loads(file.read_text()) for file in options.report]
    for report in reports or [study(seed, options.trials) for seed in range(options.studies)]:
        noise, law = report["gradient_noise"], (report["to_target"] or {}).get("law")
        if noise is None:
            console.print("no gradient was looked at")
            continue
        for row in [noise["whole"], *noise["by_epoch"]]:
            when = "all epochs" if row["epoch"] is None else f"after epoch {row['epoch']}"
            scale, low, high = (math.nan if row[name] is None else row[name] for name in ("scale", "low", "high"))
            interval = f"({low:.0f} to {high:.0f})"
            console.print(
                f"noise scale, {when}: {scale:.0f} {interval}; {row['looks']} looks in {row['trials']} trials"
            )
        own = "none" if law is None else f"{law['critical_batch_size']:.0f}"
        console.print(f"the study's own critical batch size: {own}; measuring cost {noise['cost']:.2%} of training")


if __name__ == "__main__":
    main()
