"""Bad input, whichever way it comes in: one line that says what is wrong, and everything stays as it was."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import inputs
import pytest
from batchopt import Goal, SearchSpace, Task
from batchopt.cli.batchopt import main
from batchopt.cli.exits import _finish
from batchopt.cli.study_script import script_command
from batchopt.datasets import load_mnist
from batchopt.errors import BatchoptError
from batchopt.service.app import make_app
from batchopt.service.guard import Keys
from written_study import write_study

LONGEST_LINE = 2000


def contents(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "file" if path.is_file() else "other"
        content = path.read_bytes() if kind == "file" else b""
        found[str(path.relative_to(folder))] = f"{kind} {hashlib.sha256(content).hexdigest()}"
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user may point at by mistake, and one good database."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "folder").mkdir()
    (folder / "notes.txt").write_text("not a database\n" * 100)
    (folder / "notes.keras").write_text("not to be replaced\n")
    (folder / "raises.py").write_text("raise ValueError('of the script')\n")
    (folder / "nothing.py").write_text("pass\n")
    (folder / "syntax.py").write_text("def (\n")
    os.mkfifo(folder / "pipe")
    (folder / "loop.db").symlink_to("loop.db")
    write_study(folder / "good.db")
    shutil.copy(folder / "good.db", folder / "version.db")
    (folder / "cut.db").write_bytes((folder / "good.db").read_bytes()[:5000])
    (folder / "short.db").write_bytes(b"SQL")
    for name, statement in [
        ("version.db", "update batchopt_schema set version = 99"),
        ("other.db", "create table invoices (id integer)"),
    ]:
        with closing(sqlite3.connect(folder / name)) as connection, connection:
            connection.execute(statement)
    inputs.data_files(folder)
    return folder


@pytest.fixture
def unchanged(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder that must be as it was afterwards."""
    monkeypatch.chdir(files)
    before = contents(files)
    yield files
    assert contents(files) == before


def assert_one_line(ended: pytest.ExceptionInfo[SystemExit], capsys: pytest.CaptureFixture[str]) -> None:
    said = capsys.readouterr()
    assert ended.value.code in (1, 2), said
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err and "geheim" not in said.err and len(said.err) < LONGEST_LINE
    assert said.out == ""
    assert not set(said.err) & {"\x1b", "\0"}


def shown(row: Any) -> str:
    return " ".join(str(part)[:20].encode("unicode_escape").decode() for part in row)


@pytest.mark.parametrize("options", inputs.SCRIPT, ids=shown)
def test_a_script_refuses_it_before_anything_is_started(
    options: list[str], unchanged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study.py", *options])
    space = SearchSpace([16, 64, 256], (1e-4, 1e-1))
    with pytest.raises(SystemExit) as ended:
        _finish(script_command(Task(_never, _never), space, Goal(epochs=2)))
    assert_one_line(ended, capsys)


def _never(*anything: object) -> None:
    raise AssertionError("nothing is to be built or loaded")


@pytest.mark.parametrize("arguments", inputs.COMMANDS, ids=shown)
def test_a_command_refuses_it(
    arguments: list[str], unchanged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["batchopt", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert_one_line(ended, capsys)


@pytest.mark.parametrize("number", range(len(inputs.API)))
def test_the_library_refuses_it(number: int, unchanged: Path) -> None:
    with pytest.raises(BatchoptError) as refusal:
        inputs.API[number]()
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["lacks", "lengths", "objects", "empty", "text", "dims", "cut", "words", "nothing", "pickle", "missing"],
)
def test_a_data_file_that_is_none_is_refused(name: str, unchanged: Path) -> None:
    with pytest.raises(BatchoptError) as refusal:
        load_mnist(f"{name}.npz")
    assert len(str(refusal.value).splitlines()) == 1 and f"{name}.npz" in str(refusal.value)


@pytest.fixture(scope="module")
def call(files: Path) -> Iterator[Callable[[str, str, Any], httpx.Response]]:
    """Makes one call of a service in this process."""
    storage = str(files / "served.db")
    shutil.copy(files / "good.db", storage)
    with closing(Keys(storage)) as keys, asyncio.Runner() as runner:
        app = make_app(storage, keys)

        async def answer(method: str, path: str, body: Any) -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            sent = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
            headers = {"Content-Type": "application/json", "If-Match": '"none"'}
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers=headers, **sent)

        yield lambda method, path, body: runner.run(answer(method, path, body))
    for left in files.glob("served.db*"):
        left.unlink()


@pytest.mark.parametrize(("method", "path", "body"), inputs.SERVICE, ids=map(str, range(len(inputs.SERVICE))))
def test_the_service_refuses_it_and_keeps_nothing(
    method: str, path: str, body: Any, call: Callable[[str, str, Any], httpx.Response], files: Path
) -> None:
    with closing(sqlite3.connect(files / "served.db")) as connection:
        before = list(connection.iterdump())
    answer = call(method, path, body)
    assert 400 <= answer.status_code < 500, answer.text
    (line,) = answer.json().values()
    assert len(line.splitlines()) == 1 and "Traceback" not in line
    with closing(sqlite3.connect(files / "served.db")) as connection:
        assert list(connection.iterdump()) == before


def test_there_are_hundreds_of_them() -> None:
    ways = (inputs.SCRIPT, inputs.COMMANDS, inputs.API, inputs.SERVICE)
    assert sum(map(len, ways)) >= 400 and all(len(way) >= 60 for way in ways)
