"""Text of others is text, and a password is nobody's to read, wherever they are shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from batchopt.events import Noted
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.console import TextConsole
from batchopt.report.show.dashboard import note
from batchopt.report.show.live import LiveView
from batchopt.report.show.page import page
from batchopt.store.database import open_database
from batchopt.text import first_line, printable, shown_url, without_secrets
from commands import say
from written_study import write_study

PASSWORDS = [
    "postgresql+psycopg://h/db?user=u&password=geheim",
    "postgresql://u:p@geheim/w0rd@h/db",
    "mysql+pymysql://u:p@geheim@h",
    "mysql+pymysql://u:geheim@h/d?ssl_ca=x",
    "mysql+pymysql://h/d?passwd=geheim&user=u",
    "postgresql://h/db?password=ge&geheim&user=u",
    "s3://key:geheim@b/x",
    "sftp://u:geheim@h/p",
    "http://u:geheim@h/",
    "simplecache::s3://k:geheim@b",
    "postgresql+psycopg:/u:geheim@h",
    "postgresql//u:geheim@h/db",
    "postgresql:u:geheim@h/db",
    "postgresql:///u:geheim@h/db",
    " PostgreSQL://u:geheim@h/db",
    "u:geheim@h/db",
    "sqlite+pysqlcipher://:geheim@/o.db",
    "postgresql://u:geheim@h:port/db",
    "nosuch://u:geheim@h/db",
]

COMMANDS = (["list"], ["trials"], ["trials", "--csv"], ["report"], ["report", "--on", "nowhere"], ["doctor"])

HOSTILE = "\x1b[31m[red]\x1b]0;title\x07[/]\u202e<b>|x|\nnothing is wrong"
"""A colour, markup, a window's title, writing from the right, HTML, a table's cells, a line of its own."""


@pytest.mark.parametrize("url", PASSWORDS)
def test_a_password_is_not_shown_wherever_it_stands_in_a_url(url: str) -> None:
    assert "geheim" not in shown_url(url)
    assert "***" in shown_url(url)
    assert "geheim" not in without_secrets(f"cannot reach {url} with geheim", url)


@pytest.mark.parametrize(
    "plain",
    ["studies.db", "/data/run:3@home/studies.db", "sqlite:////data/a:b@c.db", "postgresql://u@h:5432/db", "./a:b@c.db"],
)
def test_what_holds_no_password_is_shown_as_it_is(plain: str) -> None:
    assert shown_url(plain) == plain


def test_what_a_terminal_would_act_on_is_shown_as_python_writes_it() -> None:
    assert printable(HOSTILE) == (r"\x1b[31m[red]\x1b]0;title\x07[/]\u202e<b>|x|\nnothing is wrong")
    assert printable("a\n\tb\r", lines=True) == "a\n\tb\\r"
    assert printable("Größe 5 µs, 漢字 ±") == "Größe 5 µs, 漢字 ±"
    assert printable("\udcff") == r"\udcff"


def test_the_first_line_of_an_error_that_says_nothing_is_its_name() -> None:
    assert first_line(NotImplementedError()) == "NotImplementedError"
    assert first_line(ValueError("\n\n  so it is.\nand more")) == "so it is"
    assert first_line("") == ""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose name, notes, machine and parameters somebody else has chosen."""
    folder = tmp_path_factory.mktemp("hostile")
    write_study(folder / "studies.db", HOSTILE)
    database = open_database(str(folder / "studies.db"), create=True)
    study = optuna.load_study(study_name=HOSTILE, storage=database.storage)
    database.db.dispose()
    with closing(sqlite3.connect(folder / "studies.db")) as connection, connection:
        trial = study.trials[2]._trial_id
        connection.execute(
            "insert into trial_user_attributes (trial_id, key, value_json) values (?, 'failure', ?)",
            (trial, json.dumps(HOSTILE)),
        )
        connection.execute(
            "insert into trial_params (trial_id, param_name, param_value, distribution_json) "
            "select trial_id, ?, 0, ? from trials",
            (HOSTILE, json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [HOSTILE]}})),
        )
        (described,) = connection.execute("select description from batchopt_machines").fetchone()
        described = json.dumps(json.loads(described) | {"device": HOSTILE})
        connection.execute("update batchopt_machines set description = ?", (described,))
    return folder


@pytest.mark.parametrize(
    "command",
    [["list"], ["trials"], ["trials", "--csv"], ["report"], ["report", "--on", "nowhere"], ["doctor"]],
    ids=" ".join,
)
def test_names_and_notes_of_a_database_are_text_on_a_terminal_and_through_a_pipe(
    command: list[str], hostile: Path
) -> None:
    said = say(*command, "--storage", str(hostile / "studies.db"))
    assert not set(said) & {"\x1b", "\x07", "\u202e"}
    assert not re.search(r"^nothing is wrong", said, re.MULTILINE)
    if command[0] in ("list", "trials"):
        assert r"\x1b[31m[red]" in said, "nothing is swallowed as markup"
    if command[-1] == "--csv":
        assert len(list(csv.reader(io.StringIO(said)))) == 9


def test_what_a_live_view_is_told_is_text() -> None:
    drawn = io.StringIO()
    with LiveView(TextConsole(file=drawn, force_terminal=True, width=120)) as view:
        view(Noted(HOSTILE))
    # Without the colours that are Rich's own.
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.getvalue())
    assert r"\x1b[31m[red]\x1b]0;title" in shown and r"[/]\u202e" in shown
    assert not set(drawn.getvalue()) & {"\x07", "\u202e"}


def test_names_and_notes_of_a_database_are_text_on_a_page_and_in_a_note(hostile: Path) -> None:
    evidence = read_evidence(str(hostile / "studies.db"))
    # Which then begins with the study's name.
    evidence = dataclasses.replace(evidence, report=dataclasses.replace(evidence.report, recommendation=None))
    shown, noted = page(evidence), note(evidence.report)
    assert not set(shown) & {"\x1b", "\u202e"} and "<b>" not in shown.partition("<script")[0]
    assert "<b>" not in noted.replace(r"\<b\>", "") and "\x1b" not in noted
    assert r"\|x\|" in noted


@pytest.mark.parametrize("url", ["mysql+pymysql://u:p@geheim@h", "postgresql//u:geheim@h/db", "nosuch://u:geheim@h/d"])
def test_a_command_shows_no_password(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = say("list", "--storage", url)
    assert "geheim" not in said and "***" in said
    assert list(tmp_path.iterdir()) == []
