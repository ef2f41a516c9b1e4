"""What `fit` with callbacks around batches takes here, against Keras' own `fit` with the same callbacks.

    python tests/benchmarks/callback_speed.py [--examples 10000] [--batch-sizes 32,128,1024] [--rounds 5]

Both take turns in one process, warm, and validate after each epoch in batches of 1000. Printed are medians of the
rounds, and how much longer ours takes; that it is called once an epoch is what it pays for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from batchopt import Dataset, Task
from batchopt.datasets import load_mnist
from batchopt.training.callbacks import TrialCallbacks
from batchopt.training.probe import choose_engine
from batchopt.training.resident import Resident
from reference import build_model
from rich.console import Console
from rich.table import Table

EPOCHS = 5


class Counting(keras.callbacks.Callback):
    """Cheap, so that the calls themselves are what is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.batches += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--batch-sizes", default="32,128,1024")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    (x, y), validation = load_mnist().split(options.examples).train, load_mnist().split().validation
    data = Dataset((x, y), validation)
    task = Task(build_model, lambda path: data, callbacks=lambda: [Counting()])
    program, _ = choose_engine(task, Resident(data), learning_rate=1e-3, extra={})
    table = Table(box=None, title=f"seconds of {EPOCHS} epochs of {len(x)}, engine {program.engine.name}")
    for name in ("batch size", "ours", "Keras", "longer"):
        table.add_column(name, justify="right")
    for batch_size in map(int, options.batch_sizes.split(",")):
        program.prepare(batch_size)
        steps = -(-len(x) // batch_size)

        def ours(batch_size: int = batch_size, steps: int = steps) -> None:
            callbacks = TrialCallbacks([Counting()])
            callbacks.begin(program.model, epochs=EPOCHS, steps=steps)
            for epoch in range(1, EPOCHS + 1):
                rng = np.random.default_rng(epoch)
                program.epoch(epoch, batch_size=batch_size, rng=rng, callbacks=callbacks)
            assert callbacks.own[0].batches == steps * EPOCHS

        model = build_model(1e-3)

        def theirs(model: keras.Model = model, batch_size: int = batch_size) -> None:
            how = {"validation_data": validation, "validation_batch_size": 1000, "verbose": 0}
            model.fit(x, y, batch_size=batch_size, epochs=EPOCHS, callbacks=[Counting()], **how)

        seconds: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
        for number in range(options.rounds + 1):
            for contender, taken in seconds.items():
                started = time.perf_counter()
                contender()
                if number:
                    taken.append(time.perf_counter() - started)
        mine, keras_own = (statistics.median(taken) for taken in seconds.values())
        table.add_row(str(batch_size), f"{mine:.3f}", f"{keras_own:.3f}", f"{mine / keras_own - 1:+.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
