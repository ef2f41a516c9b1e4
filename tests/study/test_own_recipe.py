"""A recipe of one's own through a whole study, in real workers: batches that a function makes, callbacks, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.datasets import load_mnist
from batchopt.events import Event, Noted
from batchopt.report.answer.reading import read_study
from mnist import build_model

SPACE = SearchSpace([16, 64], (1e-3, 1e-2))


def made_mnist(path: str | None) -> Dataset:
    import keras

    images, labels = load_mnist().train

    class Slices(keras.utils.PyDataset):
        def __init__(self, batch_size: int) -> None:
            super().__init__()
            self.size = batch_size

        def __len__(self) -> int:
            return -(-500 // self.size)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            part = slice(index * self.size, min(500, (index + 1) * self.size))
            return images[part], labels[part]

    validation = images[1000:1300], labels[1000:1300]
    return Dataset(train=lambda batch_size: Slices(batch_size), train_examples=500, validation=validation)


def counting(batch_size: int) -> list[Any]:
    import keras

    class Counting(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.batches = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches += 1

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            # Of all epochs so far, whatever trials took turns between them.
            assert self.batches == (epoch + 1) * -(-500 // batch_size), (self.batches, epoch)

    return [Counting()]


@pytest.mark.slow
def test_batches_that_a_function_makes_and_callbacks_around_them_go_through_a_study(tmp_path: Path) -> None:
    """Trials are paused, and go on with their callbacks; why the engine is `fit` is said once."""
    said: list[str] = []
    study = Study(
        Task(build_model, made_mnist, callbacks=counting),
        SPACE,
        Goal(epochs=4),
        name="small",
        storage=str(tmp_path / "studies.db"),
        options=Options(device="cpu", probe=False),
    )

    def hear(event: Event) -> None:
        if isinstance(event, Noted):
            said.append(event.text)

    study.run(Budget(trials=4), tries=[Configuration(16, 0.005)], listener=hear)
    trials = read_study(str(tmp_path / "studies.db"), "small")
    assert len(trials) == 4 and any(trial.state == "complete" for trial in trials)
    assert trials[0].epochs[0]["steps"] == 32
    assert sum("is called around batches" in text for text in said) == 1
    assert not [text for text in said if "starts over" in text]


@pytest.mark.slow
def test_one_class_that_weighs_nothing_is_never_learned(tmp_path: Path) -> None:
    def load(path: str | None) -> Dataset:
        images, labels = load_mnist().train
        few = labels[:3000] < 2
        return Dataset((images[:3000][few], labels[:3000][few]), split_by="class")

    values = {}
    for name, weights in (("both", None), ("one", {0: 1.0, 1: 0.0})):
        study = Study(
            Task(build_model, load, class_weight=weights),
            SearchSpace([64], (0.003, 0.003)),
            Goal(epochs=2),
            name=name,
            storage=str(tmp_path / "studies.db"),
            options=Options(device="cpu", engine="fused", probe=False),
        )
        study.run(Budget(trials=1))
        (trial,) = read_study(str(tmp_path / "studies.db"), name)
        values[name] = trial.value
    assert values["both"] > 0.95 and values["one"] < 0.6
