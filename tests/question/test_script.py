"""A script's question, read without running its study; a broken script is said as it is broken."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from batchopt.errors import InvalidInput
from batchopt.question.script import read_question

ASKS = """
from batchopt import Goal, SearchSpace, Task, run_script
from {beside} import build_model
run_script(Task(build_model, print), SearchSpace([32]), Goal(epochs=3))
"""


@pytest.fixture(autouse=True)
def same_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def refusal(script: Path, content: str | bytes) -> str:
    script.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput) as refused:
        read_question(script)
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = 1\ndef f(:\n", "study.py, line 2: invalid syntax."),
        ("import nosuchmodule\n", "study.py: No module named 'nosuchmodule'. Install it, or correct the script."),
        (b"x = '\xff\xfe'\n", "study.py"),
        (b"\x00\x01", "null bytes"),
        ("raise SystemExit('no data here')", "study.py does not call run_script and ended with 'no data here'."),
        ("x = 1\n", "study.py does not call run_script. Give the path of a study script."),
    ],
)
def test_a_script_that_cannot_be_read_is_one_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    line = refusal(tmp_path / "study.py", content)
    assert said in line and "\n" not in line


def test_a_database_is_no_script(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
        connection.execute("create table studies (id integer)")
    line = refusal(tmp_path / "studies.db", (tmp_path / "studies.db").read_bytes())
    assert "studies.db" in line and "\n" not in line


def test_what_a_script_raises_is_shown_from_its_own_frame_on(tmp_path: Path) -> None:
    said = refusal(tmp_path / "study.py", "def load():\n    return {}['key']\n\nload()\n")
    lines = said.splitlines()
    assert lines[0].endswith("study.py raised:")
    assert lines[1:3] == ["Traceback (most recent call last):", f'  File "{tmp_path}/study.py", line 4, in <module>']
    assert lines[-1] == "KeyError: 'key'"
    assert "questions.py" not in said


def test_a_script_may_be_of_another_encoding_and_have_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("def build_model(learning_rate): pass\n")
    content = "# -*- coding: latin-1 -*-\n# größer\n" + ASKS.format(beside="beside_it")
    (tmp_path / "study.py").write_bytes(content.encode("latin-1"))
    question = read_question(tmp_path / "study.py")
    assert question.goal.epochs == 3
    assert str(tmp_path) in sys.path, "a worker finds them too"
