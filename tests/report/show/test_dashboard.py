"""The real optuna-dashboard on a finished study: the note, the figures and the trials are there."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import plotly.graph_objects as go
import pytest
from batchopt.events import Event, Noted, TrialEnded
from batchopt.question.metric import Metric
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.dashboard import ShownWhileItGoesOn, bring_up_to_date, show
from batchopt.report.show.pictures import PICTURES, pictures
from batchopt.store.database import Database, open_database
from batchopt.store.ledger import Ledger
from browsing import drawn_by_browser, svg_texts
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from written_study import write_study

DASHBOARD = [sys.executable, "-c", "from batchopt.cli.batchopt import main; main()", "dashboard"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `batchopt dashboard` shows a finished study; ended as a user ends it."""
    folder = tmp_path_factory.mktemp("dashboard")
    write_study(folder / "studies.db")
    port = free_port()
    process = subprocess.Popen(
        [*DASHBOARD, "--port", str(port)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("1 study and 6 trials in sqlite:///studies.db: ")
        here = f"http://127.0.0.1:{port}"
        wait_for(here)
        yield here
    finally:
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)


def wait_for(address: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urlopen(f"{address}/api/studies", timeout=10):
                return
        except URLError:
            time.sleep(0.1)
    raise TimeoutError(address)


def asked(address: str) -> dict[str, object]:
    with urlopen(address, timeout=30) as answer:
        found = json.load(answer)
    assert isinstance(found, dict)
    return found


def test_the_study_has_its_note_its_figures_and_its_trials(address: str) -> None:
    (listed,) = asked(f"{address}/api/studies")["study_summaries"]  # type: ignore[misc]
    study = asked(f"{address}/api/studies/{listed['study_id']}?after=0")
    assert study["note"]["body"].startswith("**Use batch size 64 with learning rate 0.01")  # type: ignore[index]
    figures = {plot["id"] for plot in study["plotly_graph_objects"]}  # type: ignore[attr-defined]
    assert {"landscape", "pareto", "throughput", "learning-curves"} <= figures
    assert study["objective_names"] == ["validation_accuracy"]
    assert len(study["trials"]) == 6  # type: ignore[arg-type]


def test_what_diverged_or_did_not_fit_does_not_look_good(address: str) -> None:
    (listed,) = asked(f"{address}/api/studies")["study_summaries"]  # type: ignore[misc]
    study = asked(f"{address}/api/studies/{listed['study_id']}?after=0")
    trials = {trial["number"]: trial for trial in study["trials"]}  # type: ignore[attr-defined]
    assert [trials[number]["state"] for number in (3, 4)] == ["Pruned", "Pruned"]
    assert not any(trials[number].get("values") for number in (3, 4))
    assert [step["value"] for step in trials[3]["intermediate_values"]] == ["nan"]
    attributes = {attr["key"]: attr["value"] for attr in trials[3]["user_attrs"]}
    assert (attributes["diverged"], attributes["value"]) == ("True", "null")
    assert [trial["number"] for trial in study["best_trials"]] == [1]  # type: ignore[attr-defined]


def test_a_browser_shows_the_figures_the_note_and_the_trials(address: str, tmp_path: Path) -> None:
    (listed,) = asked(f"{address}/api/studies")["study_summaries"]  # type: ignore[misc]
    study = f"{address}/dashboard/studies/{listed['study_id']}"
    drawn = svg_texts(drawn_by_browser(study, tmp_path))
    assert {"Expected validation accuracy", "batch size, examples", "recommended"} <= set(drawn)
    note = drawn_by_browser(f"{study}/note", tmp_path)
    assert "<strong>Use batch size 64 with learning rate 0.01" in note
    assert "<td>~0.01" in note or "<td>0.01" in note, "the table, as a table"
    trials = drawn_by_browser(f"{study}/trials", tmp_path)
    assert {int(number) for number in re.findall(r"Trial (\d+)\b", trials)} == set(range(6))


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    write_study(tmp_path / "studies.db")
    return optuna.load_study(study_name="mnist", storage=f"sqlite:///{tmp_path}/studies.db")


@pytest.fixture
def database(study: optuna.Study, tmp_path: Path) -> Iterator[Database]:
    opened = open_database(str(tmp_path / "studies.db"), create=False)
    yield opened
    opened.db.dispose()


def test_a_figure_that_cannot_be_drawn_any_more_is_removed_and_one_of_the_users_own_stays(
    study: optuna.Study, database: Database, tmp_path: Path
) -> None:
    def shown() -> set[str]:
        return set(get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id)))

    evidence = read_evidence(str(tmp_path / "studies.db"))
    save_plotly_graph_object(study, go.Figure(), graph_object_id="mine")
    show(study, evidence, database)
    drawn = {name.replace("_", "-") for name in pictures(evidence)}
    assert shown() == {"mine", *drawn} and {"time-to-target", "learning-curves"} <= drawn
    assert set(pictures(evidence)) <= set(PICTURES)
    show(study, dataclasses.replace(evidence, report=dataclasses.replace(evidence.report, to_target=None)), database)
    assert shown() == {"mine", *drawn} - {"time-to-target", "steps-to-target"}


def test_a_note_of_the_users_own_stays_and_one_of_ours_is_brought_up_to_date(
    study: optuna.Study, database: Database, tmp_path: Path
) -> None:
    evidence = read_evidence(str(tmp_path / "studies.db"))
    assert show(study, evidence, database)
    assert get_note(study).startswith("**Use batch size 64")
    unfinished = dataclasses.replace(evidence.report, recommendation=None, trials={"running": 1})
    without = dataclasses.replace(evidence, report=unfinished)
    assert show(study, without, database)
    assert get_note(study).startswith("**Study mnist has no complete trial yet")
    save_note(study, "Remember the milk.")
    assert not show(study, evidence, database)
    assert get_note(study) == "Remember the milk."
    save_note(study, " ")
    assert show(study, evidence, database)


def test_a_study_that_goes_on_is_shown_once_a_minute_and_less_often_where_that_is_slow() -> None:
    now, shown = 0.0, []

    def show_slowly() -> None:
        nonlocal now
        shown.append(now)
        now += 3.0 if len(shown) > 1 else 0.5

    heard: list[Event] = []
    listener = ShownWhileItGoesOn(heard.append, show_slowly, clock=lambda: now)
    ended = TrialEnded(0, "complete", 32, 0.01, Metric(), 0.9, 5, 2.0)
    for second in range(0, 400, 10):
        now = max(now, float(second))
        listener(Noted("nothing to do"))
        listener(ended)
    assert len(heard) == 80
    assert shown == [60.0, 130.0, 290.0]


def test_what_keeps_a_study_from_being_shown_is_said_and_does_not_end_it(study: optuna.Study, tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "studies.db"), create=False)
    ledger, heard = Ledger(database, study), []
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("drop table batchopt_epochs")
    assert bring_up_to_date(ledger, heard.append) is None
    assert ["optuna-dashboard does not show the last findings" in event.text for event in heard] == [True]
    database.db.dispose()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "evil.com"}, 403),
        ({"Host": "127.0.0.1.evil.com:8080"}, 403),
        ({"Origin": "http://evil.com"}, 403),
    ],
)
def test_a_page_of_another_site_gets_nothing_by_a_name_that_it_has_point_here(
    address: str, headers: dict[str, str], status: int
) -> None:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=30)
    for method, path in (("GET", "/api/studies"), ("DELETE", "/api/studies/77")):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status == 403) == (status == 403), method
    connection.close()


def test_a_port_that_is_taken_is_one_clear_line(address: str, tmp_path: Path) -> None:
    write_study(tmp_path / "studies.db")
    port = address.rsplit(":", 1)[1]
    done = subprocess.run([*DASHBOARD, "--port", port], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"port {port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
