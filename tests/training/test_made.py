"""Batches that a function makes for a batch size: trained as `fit` trains them, and looked at before."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from batchopt import Dataset, Task
from batchopt.errors import BatchoptError, DataError
from batchopt.training.data_check import check
from batchopt.training.fingerprints import data_fingerprint
from batchopt.training.made import first_batch
from batchopt.training.messages import Train
from batchopt.training.probe import choose_engine
from batchopt.training.programs import Programs
from batchopt.training.resident import Resident
from batchopt.training.seeds import epoch_rng, trial_seed
from models import EXAMPLES, HELD_OUT, compiled, numbers, sgd, stack

X, Y = numbers()
EPOCHS, BATCH_SIZE, RATE = 2, 16, 0.2


def build_model(learning_rate: float) -> keras.Model:
    return compiled(stack(), sgd(learning_rate))


class Batches(keras.utils.PyDataset):
    def __init__(self, start: int, stop: int, batch_size: int, labels: Any = Y, **how: Any) -> None:
        super().__init__(**how)
        self.x, self.y, self.size = X[start:stop].astype("float64"), labels[start:stop], batch_size

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]


def generated(batch_size: int, seed: int) -> Iterator[Any]:
    order = np.random.default_rng(seed).permutation(EXAMPLES)
    while True:
        for start in range(0, EXAMPLES, batch_size):
            index = order[start : start + batch_size]
            yield X[index], Y[index]


class Loader:
    """As torch's are: it can be gone through again, and knows how long it is."""

    def __init__(self, batch_size: int) -> None:
        self.batches = Batches(0, EXAMPLES, batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return (self.batches[index] for index in range(len(self)))


TRAIN: dict[str, Any] = {
    "a PyDataset": lambda batch_size: Batches(0, EXAMPLES, batch_size),
    "several workers": lambda batch_size: Batches(0, EXAMPLES, batch_size, workers=2),
    "a generator": generated,
    "a stream of batches": lambda batch_size: tf.data.Dataset.from_tensor_slices((X[:EXAMPLES], Y[:EXAMPLES])).batch(
        batch_size
    ),
}


def data(train: Any, validation: Any = None) -> Dataset:
    return Dataset(train, validation=validation or (X[EXAMPLES:], Y[EXAMPLES:]), train_examples=EXAMPLES)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "a PyDataset" else [pytest.mark.slow]) for kind in TRAIN]
)
def test_every_epoch_is_what_fit_makes_of_it(kind: str) -> None:
    """Validated on what a function makes too; and an epoch is the same whether it follows on another or on a pause."""
    make = TRAIN[kind]
    given = data(make, lambda batch_size: Batches(EXAMPLES, EXAMPLES + HELD_OUT, batch_size))
    check(given)
    resident = Resident(given.split())
    task = Task(build_model, lambda path: given)
    first, _ = choose_engine(task, resident, learning_rate=0.04, extra={})
    assert first.engine.name == "fit"
    programs = Programs(task, resident, first, lambda program, batch_size: None)
    programs.begin(Train(0, 0, BATCH_SIZE, RATE, {}, from_epoch=0, until_epoch=EPOCHS), print)
    ours = [programs.current.epoch(epoch, batch_size=BATCH_SIZE, rng=epoch_rng(0, 0, epoch)) for epoch in (1, 2)]

    keras.utils.set_random_seed(trial_seed(0, 0))
    model = build_model(RATE)
    for epoch, mine in zip((1, 2), ours, strict=True):
        seed = int(epoch_rng(0, 0, epoch).integers(2**31))
        random.seed(seed)
        batches = make(BATCH_SIZE, seed) if make is generated else make(BATCH_SIZE)
        more = {"steps_per_epoch": -(-EXAMPLES // BATCH_SIZE)} if make is generated else {}
        shuffle = isinstance(batches, keras.utils.PyDataset)
        figures = model.fit(batches, validation_data=(X[EXAMPLES:], Y[EXAMPLES:]), verbose=0, shuffle=shuffle, **more)
        assert mine.train_loss == pytest.approx(figures.history["loss"][0], abs=1e-5)
        assert mine.validation_loss == pytest.approx(figures.history["val_loss"][0], abs=1e-5)
        assert mine.steps == -(-EXAMPLES // BATCH_SIZE)


REFUSED: dict[str, tuple[Dataset, str]] = {
    "a PyDataset itself": (data(Batches(0, EXAMPLES, 32)), "train is a Batches, which has a batch size of its own"),
    "a loader itself": (data(Loader(32)), "train is a Loader, which has a batch size of its own"),
    "an array itself": (Dataset(X, (X, Y)), "train is a ndarray: give a tuple (x, y)"),
    "inputs alone": (Dataset({"x": X}, (X, Y)), "train is a dict: give a tuple (x, y)"),
    "a generator itself": (data(generated(32, 0)), "train is a generator, which has a batch size of its own"),
    "no count": (Dataset(TRAIN["a PyDataset"], (X, Y)), "say of how many examples, train_examples=n"),
    "no validation": (Dataset(TRAIN["a PyDataset"], train_examples=EXAMPLES), "give validation= with it"),
    "another count": (
        Dataset(TRAIN["a PyDataset"], (X, Y), train_examples=500),
        "train_examples=500 make 250 batches of 2, and train(2) has 43",
    ),
    "a size of its own": (data(lambda size: Batches(0, EXAMPLES, 32)), "asked for batches of 2 and made one of 32"),
    "no batches": (data(lambda size: 7), "a function of the batch size returned int: return a keras.utils.PyDataset"),
    "empty": (data(lambda size: iter(())), "made no batch of 2 examples"),
    "a class too many": (
        data(lambda size: Batches(0, EXAMPLES, size, labels=Y + 3)),
        "the model has 3 outputs, for the classes 0 to 2",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_trained_on_is_one_line(kind: str) -> None:
    wrong, said = REFUSED[kind]

    def begin() -> None:
        check(wrong)
        choose_engine(Task(build_model, lambda path: wrong), Resident(wrong.split()), learning_rate=0.1, extra={})

    with pytest.raises(BatchoptError) as refusal:
        begin()
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_loader_that_knows_its_length_passes_and_fewer_examples_are_its_own_to_make() -> None:
    given = data(Loader)
    check(given)
    assert data_fingerprint(given) == data_fingerprint(data(Loader))
    assert data_fingerprint(given) != data_fingerprint(dataclasses.replace(given, train_examples=84))
    with pytest.raises(DataError, match="have it make them of fewer"):
        given.split(20)


def test_batches_of_another_size_than_is_asked_for_are_refused() -> None:
    def ignores(batch_size: int) -> Any:
        while True:
            yield np.zeros((32, 4), "float32"), np.zeros(32)

    with pytest.raises(DataError, match="was asked for batches of 2 and made one of 32"):
        first_batch(ignores)
