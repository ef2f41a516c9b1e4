"""What is not trusted is not run, and what is secret is not said (SECURITY.md)."""

from __future__ import annotations

import ast
import csv
import io
import json
import pickle
import re
import sqlite3
import tomllib
import traceback
from contextlib import closing
from pathlib import Path

import batchopt
import numpy as np
import pytest
import sqlalchemy as sa
from batchopt.datasets import load_mnist
from batchopt.errors import BatchoptError
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.dashboard import note
from batchopt.report.show.page import page
from batchopt.store.access import opened
from batchopt.store.database import open_database
from batchopt.store.tokens import Right, Tokens
from batchopt.store.transfer.transfer import merge
from batchopt.text import cell
from batchopt.training.checkpoint import unpack
from commands import say
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from servers import own_database
from written_study import write_study

ROOT = Path(__file__).parents[1]
PACKAGE = Path(batchopt.__file__).parent

BETWEEN_PROCESSES = {"training/worker.py", "training/by_value.py", "workers/client.py"}
"""A study and its own workers, over a socket that nobody else has."""

RUNS_WHAT_IT_READS = {"eval", "exec", "compile", "__import__", "os.system", "yaml.load"}

THE_SCRIPT = "question/script.py"
"""Runs a study's script, which is trusted as any program is that its user starts."""


def called(path: Path) -> set[str]:
    """Dotted names of what a module calls, and modules that it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
        elif isinstance(node, ast.Import):
            found |= {f"import {alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(f"import {node.module}")
    return found


def test_pickle_is_read_between_a_study_and_its_workers_alone() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if called(path) & {"import pickle", "import cloudpickle", "import dill", "import joblib", "import shelve"}
    }
    assert users == BETWEEN_PROCESSES


def test_nothing_that_is_read_is_run() -> None:
    for path in PACKAGE.rglob("*.py"):
        runs = called(path) & RUNS_WHAT_IT_READS
        assert not runs or str(path.relative_to(PACKAGE)) == THE_SCRIPT, path
        text = path.read_text()
        assert "shell=True" not in text, path
        for load in re.findall(r"np\.load\([^\n]*", text):
            assert "allow_pickle=False" in load, path


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_place_of_data_or_of_a_checkpoint_is_refused_and_not_read(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)] * 4, dtype=object)
    images = np.zeros((4, 28, 28), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=trap, x_test=images, y_test=trap)
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("data.npz", "bare.npz"):
        with pytest.raises(BatchoptError):
            load_mnist(str(tmp_path / name))
    buffer = io.BytesIO()
    np.savez(buffer, trap)
    for content in (buffer.getvalue(), pickle.dumps(Trap(sprung))):
        with pytest.raises(ValueError, match=r"pickle|allow_pickle"):
            unpack(content)
    assert not sprung.exists()


@pytest.mark.slow
def test_a_database_s_password_is_in_nothing_that_is_said_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that trusts its own machine takes any password."""
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "studies.db")
    with own_database("postgresql") as url:
        storage = sa.make_url(url).set(password="geheim").render_as_string(hide_password=False)
        merge(["studies.db"], storage)
        said = [say(*command, "--storage", storage) for command in (
            ["list"], ["list", "--json"], ["trials", "--json"], ["trials", "--csv"], ["report", "--details"],
            ["report", "--json"], ["report", "--html", "page.html"], ["doctor"], ["export", "--to", "e.db", "--json"],
            ["list", "--nosuch"], ["report", "--study", "nosuch"], ["doctor", "--fix"],
        )]  # fmt: skip
        evidence = read_evidence(storage)
        said += [page(evidence), note(evidence.report), json.dumps(evidence.report.describe()), repr(evidence)]
        with opened(storage) as database:
            said += [repr(database), str(database.url)]
    with pytest.raises(BatchoptError) as gone:
        open_database(storage, create=True)
    said.append("".join(traceback.format_exception(gone.value)))
    assert len(said) == 19 and "study mnist" in "".join(said)
    assert not [text for text in said if "geheim" in text]
    for path in tmp_path.iterdir():
        assert path.is_dir() or b"geheim" not in path.read_bytes(), path


def test_a_token_is_shown_once_and_kept_as_its_hash_alone(tmp_path: Path) -> None:
    with opened(str(tmp_path / "studies.db"), create=True) as database:
        token = Tokens(database.db).make(Right("all", None))
    assert len(token) >= 32
    assert token not in say("token", "--list", "--storage", str(tmp_path / "studies.db"))
    assert not [path for path in tmp_path.iterdir() if token.encode() in path.read_bytes()]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", " =1", "\r=1"])
def test_text_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    shown = str(cell(text))
    assert not shown.lstrip().startswith(("=", "+", "-", "@"))
    assert cell(-1.5) == -1.5 and cell("plain") == "plain"


def test_a_formula_that_a_database_holds_is_no_formula_in_csv(tmp_path: Path) -> None:
    storage = tmp_path / "studies.db"
    write_study(storage)
    with closing(sqlite3.connect(storage)) as connection, connection:
        connection.execute(
            "insert into trial_user_attributes (trial_id, key, value_json) values (3, 'failure', ?)",
            (json.dumps("=HYPERLINK(1)"),),
        )
        connection.execute("update batchopt_epochs set machine = '@SUM(1)'")
    rows = list(csv.reader(io.StringIO(say("trials", "--csv", "--storage", str(storage)))))
    cells = [entry for row in rows for entry in row]
    assert "'=HYPERLINK(1)" in cells and "'@SUM(1)" in cells
    assert not [entry for entry in cells if entry.startswith(("=", "@", "+"))]


def test_the_lock_file_names_all_that_is_asked_for_in_a_version_that_will_do() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    locked = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    for text in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), text
