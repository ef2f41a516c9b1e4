"""One server for whatever has a study of its own in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import QUESTION, served_here


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `service`."""
    return tmp_path_factory.mktemp("service") / "studies.db"


@pytest.fixture(scope="session")
def service(database: Path) -> Iterator[httpx.Client]:
    with served_here(f"sqlite:///{database}") as client:
        yield client


@pytest.fixture
def study(service: httpx.Client) -> str:
    """The path of a study of the test's own."""
    path = f"/v1/studies/study-{secrets.token_hex(4)}"
    assert service.put(path, json=QUESTION).status_code == 201
    return path
