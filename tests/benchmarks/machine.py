"""What the probe says of a machine against what is so: memory, its boundary under a limit, epoch times, failures.

    python tests/benchmarks/machine.py [--models mlp,cnn] [--rounds 3] [--trials 30] [--device gpu:0]

Predictions are taken before anything is measured. The true boundary is found by bisection, each try a real training
step and evaluation in a fresh worker under the same limit. Epochs are timed at batch sizes that were not probed, all
sizes in turns, medians of the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from batchopt import Budget, Goal, Options, SearchSpace, Task, powers_of_two
from batchopt.datasets import load_mnist
from batchopt.events import Event, Noted, ignore
from batchopt.machine.capacity import Capacity
from batchopt.signals import Interruption
from batchopt.store.attributes import OUT_OF_MEMORY
from batchopt.training.messages import EpochDone, Measure, Measured, Setup, Train
from batchopt.workers.probing import OutOfMemory, started
from batchopt.workers.process import Died
from batchopt.workers.slot import Slot
from batchopt.workers.starting import first_setup, measured, new_capacity, ready_slot
from reference import mnist, mnist_cnn
from rich.console import Console
from rich.table import Table

STUDIES = Path(__file__).parents[2] / "studies"
MODELS = {
    "mlp": (mnist.build_model, "mnist.py", "fused-xla", 400 << 20, powers_of_two(8, 8192)),
    "cnn": (mnist_cnn.build_model, "mnist_cnn.py", "fused", 600 << 20, powers_of_two(16, 2048)),
}
"""Function, script, engine, a limit that a part of 1..full fits, and the script's ladder."""

RESOLUTION = 1.05
"""Of the true boundary."""

STUDY_EXAMPLES = "10000"
"""Of the study under a limit; an epoch of batch size 1 would else take most of its time."""

STUDY_LIMITS = {"mlp": "100MiB", "cnn": "300MiB"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--parts", default="times,boundary,failures")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    console = Console(width=140)
    console.print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with Interruption() as interruption:
        for model in options.models.split(","):
            if "times" in options.parts:
                times(console, model, options.device, options.rounds, interruption)
            if "boundary" in options.parts:
                boundary(console, model, options.device, interruption)
            if "failures" in options.parts:
                failures(console, model, options.device, options.trials)


def say(event: Event) -> None:
    """What the probe met, beside its progress."""
    if isinstance(event, Noted):
        print(event.text)


def probed(
    model: str, device: str, sizes: list[int], limit: int | None, interruption: Interruption
) -> tuple[Slot, Capacity, float]:
    build, _, engine, _, _ = MODELS[model]
    space = SearchSpace(sizes, (1e-3, 1e-2))
    setup = first_setup(
        Task(build, load_mnist),
        Options(device=device, engine=engine, memory_limit=limit),  # type: ignore[arg-type]
        space,
        goal=Goal(),
        budget=Budget(),
        known_engines={},
    )
    slot = ready_slot(setup, smallest=sizes[0], interruption=interruption, listener=ignore)
    assert slot.ready is not None
    engine_seconds, started = slot.ready.engine_seconds, time.perf_counter()
    capacity = measured(
        slot, new_capacity(slot.ready, space), timed=limit is None, interruption=interruption, listener=say
    )
    return slot, capacity, engine_seconds + time.perf_counter() - started


def times(console: Console, model: str, device: str, rounds: int, interruption: Interruption) -> None:
    """Seconds of the probe; epoch times and memory at sizes that it did not look at."""
    ladder = MODELS[model][-1]
    slot, capacity, seconds = probed(model, device, ladder, None, interruption)
    law = capacity.steps
    assert law is not None
    assert capacity.memory is not None
    probed_sizes = [row.batch_size for row in capacity.rows if row.fits]
    between = [round(math.sqrt(one * next_)) for one, next_ in pairwise(ladder)]
    unseen = sorted({*ladder, *between}.difference(probed_sizes))
    predicted = {size: (law(size), capacity.step_bytes(size) or 0) for size in unseen}
    taken: dict[int, list[float]] = defaultdict(list)
    peaks: dict[int, int] = {}
    # The first epoch of each compiles.
    for trial in range(rounds + 1):
        for size in sorted({*probed_sizes, *unseen}):
            slot.worker.send(Train(trial, 0, size, 1e-3, {}, 0, 1))
            done = slot.worker.receive()
            assert isinstance(done, EpochDone)
            if trial:
                taken[size].append(done.figures.train_seconds)
                peaks[size] = (done.figures.peak_bytes or 0) - capacity.memory.resident_bytes
    slot.worker.kill()
    # The machine may be busier now than during the probe: epochs of probed sizes, in the same rounds, tell by how much.
    for size in probed_sizes:
        for seconds_taken in taken[size]:
            law.tell(size, seconds_taken)
    refined = [law(size) / statistics.median(taken[size]) - 1 for size in unseen]
    at_probed = [law.probed_epoch_s(size) / statistics.median(taken[size]) - 1 for size in probed_sizes]
    table = Table(box=None, title=f"{model}: sizes that the probe did not look at, medians of {rounds}")
    for name in ("batch size", "predicted s/epoch", "measured", "error", "predicted step MiB", "measured", "error "):
        table.add_column(name, justify="right")
    errors, memory_errors = [], []
    for size in unseen:
        (foretold, step_bytes), real = predicted[size], statistics.median(taken[size])
        # An epoch's peak has evaluation in it.
        foretold_bytes = max(step_bytes, capacity.memory.evaluation_bytes)
        errors.append(foretold / real - 1)
        memory_errors.append((foretold_bytes - peaks[size]) / (peaks[size] + capacity.memory.resident_bytes))
        table.add_row(
            str(size),
            f"{foretold:.3f}",
            f"{real:.3f}",
            f"{errors[-1]:+.1%}",
            f"{foretold_bytes / 2**20:.2f}",
            f"{peaks[size] / 2**20:.2f}",
            f"{memory_errors[-1]:+.2%} of all",
        )
    console.print(table)
    absolute = [abs(error) for error in errors]
    knee = "none" if law.knee is None else f"{law.knee:.0f}"
    console.print(
        f"{model}: probe {seconds:.1f} s (goal: under 20 for the MLP); epoch time off by "
        f"{statistics.median(absolute):.1%} in the median, {max(absolute):.1%} at worst (goals: 10 %, 30 %); at the "
        f"probed sizes themselves by {statistics.median(map(abs, at_probed)):.1%}; refined by epochs of those, by "
        f"{statistics.median(map(abs, refined)):.1%}, {max(map(abs, refined)):.1%} at worst; memory in all off by at "
        f"most {max(map(abs, memory_errors)):.2%}; knee {knee}; load {os.getloadavg()[0]:.1f}"
    )


def boundary(console: Console, model: str, device: str, interruption: Interruption) -> None:
    """The largest batch size under a limit: predicted, verified on the ladder, and true by bisection."""
    limit = MODELS[model][3]
    ladder = powers_of_two(1, 50_000)
    slot, capacity, _ = probed(model, device, ladder, limit, interruption)
    setup = dataclasses.replace(slot.worker.setup)
    slot.worker.kill()
    foretold = max((size for size in range(1, 50_001) if _foretold(capacity, size, limit)), default=0)
    low = capacity.verified
    high = low
    while high < 50_000 and _really_fits(setup, min(50_000, 2 * high), interruption):
        low = high = min(50_000, 2 * high)
    high = min(50_000, 2 * high)
    while high / low > RESOLUTION:
        middle = round((low * high) ** 0.5)
        low, high = (middle, high) if _really_fits(setup, middle, interruption) else (low, middle)
    console.print(
        f"{model}: under {limit >> 20} MiB the law says {foretold}, the true boundary is {low} to {high} "
        f"({foretold / low - 1:+.1%}); on the ladder {capacity.max_batch_size} was verified"
    )


def _foretold(capacity: Capacity, size: int, limit: int) -> bool:
    need = capacity.needed(size)
    return need is not None and need <= limit


def _really_fits(setup: Setup, size: int, interruption: Interruption) -> bool:
    try:
        worker, _ = started(setup, interruption, ignore)
    except OutOfMemory:
        return False
    try:
        worker.send(Measure((size,)))
        return isinstance(worker.receive(), Measured)
    except Died:
        return False
    finally:
        worker.kill()


def failures(console: Console, model: str, device: str, trials: int) -> None:
    """A study on 1..full under a limit that a part of the ladder fits."""
    script, limit = MODELS[model][1], STUDY_LIMITS[model]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(STUDIES / script), "--storage", f"{folder}/studies.db", "--json"]
        command += ["--batch-sizes", "1..full", "--memory-limit", limit, "--train-examples", STUDY_EXAMPLES]
        command += ["--trials", str(trials), "--epochs", "2", "--device", device]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        listing = [sys.executable, "-c", "from batchopt.cli.batchopt import main; main()", "trials", "--json"]
        listed = subprocess.run(
            [*listing, "--storage", f"{folder}/studies.db"], check=True, capture_output=True, text=True
        )
    trained = json.loads(listed.stdout)
    failed = sum(trial["note"] == OUT_OF_MEMORY for trial in trained)
    held = next((line for line in done.stderr.splitlines() if line.startswith("machine")), "")
    console.print(
        f"{model}: {len(trained)} trials on 1..{STUDY_EXAMPLES} under {limit} in {seconds:.0f} s, of batch sizes "
        f"{sorted({trial['batch_size'] for trial in trained})}: {failed} ran out of memory (goal: at most 1); {held}"
    )


if __name__ == "__main__":
    main()
