"""Databases for each test: a fresh one, and one with a study in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from batchopt.store.database import Database, open_database
from written_study import write_study


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables and nothing in them; copied, because making one takes half a second."""
    path = tmp_path_factory.mktemp("template") / "studies.db"
    open_database(str(path), create=True).db.dispose()
    return path


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Iterator[Database]:
    opened = open_database(str(shutil.copy(empty_database, tmp_path)), create=False)
    yield opened
    opened.db.dispose()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a study in it, to be copied and not to be written."""
    path = tmp_path_factory.mktemp("written") / "studies.db"
    write_study(path)
    return path
