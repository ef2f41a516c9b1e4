"""One server for whatever leaves it as it was: a process takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a fresh SQLite database, of all tests together that leave it as it was."""
    started = Server(f"sqlite:///{tmp_path_factory.mktemp('served')}/studies.db")
    yield started
    code, err = started.stop()
    assert code == 143 and "Traceback" not in err, err


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"
