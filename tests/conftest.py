"""Fixtures that several floors share: few and tiny."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Where this is set, each of the some hundred processes that tests start compiles the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Some runners set it for their processes, whose outputs are no terminals.
os.environ.pop("COLUMNS", None)

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from batchopt import Dataset
from batchopt.datasets import load_mnist
from servers import own_database

for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) == signal.SIG_IGN:
        # Started by nohup, or in the background of a script. What is ignored every child inherits, what is handled
        # none: so tests of hanging up and of Ctrl-C hold, and these tests hear neither all the same.
        signal.signal(number, lambda number, frame: None)


@pytest.fixture(scope="session")
def mnist_slice() -> Dataset:
    """The first 330 training and 110 validation images of MNIST; 330 leaves a partial batch at 8, 32 and 64."""
    images, labels = load_mnist().train
    return Dataset(train=(images[:330], labels[:330]), validation=(images[330:440], labels[330:440]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where TensorFlow has no GPU, and say so."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="TensorFlow sees no GPU on this machine"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=["postgresql", "mysql"])
def server_storage(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database on a server, PostgreSQL and then MySQL or MariaDB."""
    with own_database(request.param) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/studies.db"
    else:
        with own_database(request.param) as url:
            yield url
