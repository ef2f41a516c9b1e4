"""Record a table of real learning curves: the reference model on MNIST over batch sizes x learning rates x seeds.

    python tests/benchmarks/record_table.py [--epochs 10] [--seeds 3] [--output tests/benchmarks/data/mnist_table.npz]

It takes some 15 minutes on two cores. The benchmarks of the search and of the answer draw their studies on it. The file
holds `batch_sizes` (B,), `learning_rates` (L,), and per (B, L, seed, epoch): `val_accuracy`, `val_loss`, `train_loss`,
`train_seconds`; NaN after an epoch whose loss was not finite.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from batchopt import SearchSpace, Task, powers_of_two
from batchopt.datasets import load_mnist
from batchopt.training.messages import EpochDone, Ready, Setup, Train
from batchopt.workers.client import Worker
from reference import build_model
from rich.progress import track

TABLE = Path(__file__).with_name("data") / "mnist_table.npz"
SPACE = SearchSpace(powers_of_two(8, 8192), (1e-4, 1e-1))
LEARNING_RATES = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()

    sizes, rates = SPACE.grid_batch_sizes(), SPACE.grid_learning_rates(LEARNING_RATES)
    shape = (len(sizes), len(rates), options.seeds, options.epochs)
    names = {
        "val_accuracy": "value",
        "val_loss": "validation_loss",
        "train_loss": "train_loss",
        "train_seconds": "train_seconds",
    }
    table = {name: np.full(shape, np.nan, np.float32) for name in names}

    worker = Worker(Setup(Task(build_model, load_mnist), None, None, "auto", None, None, 1e-3))
    ready = worker.receive()
    assert isinstance(ready, Ready), ready
    # Batch sizes in turns, so that whatever else the machine does falls on the seconds of all of them.
    cells = [(b, r, s) for s in range(options.seeds) for r in range(len(rates)) for b in range(len(sizes))]
    for trial, (b, r, s) in enumerate(track(cells, description="trials")):
        worker.send(Train(trial, s, int(sizes[b]), float(rates[r]), {}, 0, options.epochs))
        for _ in range(options.epochs):
            answer = worker.receive()
            assert isinstance(answer, EpochDone), answer
            epoch = answer.figures
            for name, field in names.items():
                table[name][b, r, s, epoch.epoch - 1] = getattr(epoch, field)
            if epoch.diverged:
                break
    worker.kill()
    options.output.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        options.output,
        batch_sizes=sizes,
        learning_rates=rates,
        machine=np.array(f"{ready.machine.device}, {ready.machine.cores} cores, {ready.engine}"),
        versions=np.array(str(ready.machine.versions)),
        **table,
    )
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
