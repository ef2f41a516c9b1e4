"""The service over HTTP: a real server process, from the question to the recommendation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from batchopt.store.doctor.doctor import examine
from served import QUESTION, Server, value
from servers import own_database
from written_study import write_study


def train(server: Server, client: str, study: str) -> int:
    """Train one trial to its end; returns the status of asking."""
    asked = server.ask(client, study)
    if asked.status_code == 200:
        step, verdict = asked.json(), "continue"
        for epoch in range(step["from_epoch"] + 1, step["until_epoch"] + 1):
            assert verdict == "continue"
            verdict = server.tell(step, epoch, study).json()["verdict"]
        assert verdict == "stop"
    return asked.status_code


def test_a_study_from_its_question_to_its_recommendation(server: Server) -> None:
    made = server.put("whole")
    assert made.status_code == 201 and made.json()["made"]
    while (status := train(server, "job", "whole")) == 200:
        pass
    assert status == 410
    done = server.ask("job", "whole").json()
    assert done["done"] and done["recommendation"]["batch_size"] in (16, 64, 256)
    trials = server.trials("whole")
    assert len(trials) == 4
    assert {trial["state"] for trial in trials} == {"complete"}
    for trial in trials:
        assert [epoch["value"] for epoch in trial["epochs"]] == [value(trial, at) for at in (1, 2, 3, 4)]
    advised = server.http.get("/v1/studies/whole/recommendation").json()["recommendation"]
    assert advised == done["recommendation"]
    assert server.http.get("/v1/studies/whole/report").json()["trials"]["complete"] == 4


def test_a_question_that_is_put_again_changes_nothing_and_another_one_is_refused(server: Server) -> None:
    assert server.put("again").status_code == 201
    assert (server.put("again").status_code, server.put("again").json()["made"]) == (200, False)
    other = server.put("again", trials=5, goal={"kind": "best", "epochs": 5})
    assert other.status_code == 409
    assert other.json()["differs"]["trials"] == {"has": QUESTION["trials"], "asked": 5}
    assert set(other.json()["differs"]) == {"trials", "goal"}
    assert server.put("again").status_code == 200


NAMES = str.maketrans(dict.fromkeys("{}'\":,[] ", ""))
TIME = {"goal": {"kind": "time", "epochs": 4, "target": 0.7}}
LOSS = {"metric": {"name": "loss", "direction": "minimize"}, "goal": {"kind": "best", "epochs": 4, "value": "best"}}


@pytest.mark.parametrize(
    "changes",
    [
        TIME,
        LOSS,
        pytest.param({"goal": {"kind": "pareto", "epochs": 4}}, marks=pytest.mark.slow),
        {"search": "tpe"},
        pytest.param({"search": "random", "pause": True}, marks=pytest.mark.slow),
        {"pause": True, "trials": 8, "goal": {"kind": "best", "epochs": 8}},
        pytest.param({"batch_sizes": {"low": 16, "high": 100}}, marks=pytest.mark.slow),
        pytest.param({"batch_sizes": {"low": 16, "high": 100, "powers_of_two": False}}, marks=pytest.mark.slow),
        pytest.param({"learning_rates": {"low": 0.01, "high": 0.01}}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(f"{name}-{said}" for name, said in changes.items()).translate(NAMES),
)
def test_questions_of_all_kinds_come_to_an_end(server: Server, changes: dict[str, Any], request: Any) -> None:
    study = request.node.callspec.id[:100].replace(" ", "")
    assert server.put(study, **changes).status_code == 201
    while (asked := server.ask("job", study)).status_code == 200:
        step, verdict = asked.json(), "continue"
        epoch = step["from_epoch"]
        while verdict == "continue":
            epoch += 1
            verdict = server.tell(step, epoch, study, seconds=step["batch_size"] / 100).json()["verdict"]
        assert verdict == "stop" or (changes.get("pause") and epoch == step["until_epoch"])
    assert asked.status_code == 410, asked.text
    ended = server.trials(study)
    assert len(ended) <= (changes.get("trials") or 4) and {trial["state"] for trial in ended} <= {"complete", "pruned"}
    report = server.http.get(f"/v1/studies/{study}/report")
    assert report.status_code == 200 and report.json()["goal"]["kind"] == changes.get("goal", {}).get("kind", "best")
    assert [each["device"] for each in [report.json()["machine"]]] == ["abacus"]


def test_a_study_that_is_deleted_meanwhile_is_not_there(server: Server) -> None:
    server.put("deleted")
    step = server.ask("a", "deleted").json()
    optuna.delete_study(study_name="deleted", storage=server.storage)
    late = server.tell(step, 1, "deleted")
    assert late.status_code in (404, 412, 503) and late.json()["error"]
    assert server.tell(step, 1, "deleted").status_code == 404
    assert server.put("deleted").status_code == 201
    assert server.tell(step, 1, "deleted").status_code == 412
    assert server.ask("a", "deleted").status_code == 200


def test_a_scripts_study_can_be_read_and_not_be_trained_by_jobs(server: Server) -> None:
    write_study(Path(server.storage.removeprefix("sqlite:///")), "scripted")
    before = server.trials("scripted")
    for answer in (server.put("scripted"), server.ask("a", "scripted")):
        assert answer.status_code == 409 and "a script of its own trains it" in answer.json()["error"]
    assert server.http.get("/v1/studies/scripted/report").status_code == 200
    assert server.trials("scripted") == before


def test_a_study_that_was_half_made_is_made(server: Server) -> None:
    optuna.create_study(study_name="half", storage=server.storage, direction="maximize")
    assert server.ask("a", "half").status_code == 404
    assert server.put("half").status_code == 201 and server.ask("a", "half").status_code == 200


@pytest.mark.slow
def test_two_servers_serve_one_study() -> None:
    with own_database("postgresql") as storage:
        one, other = Server(storage), Server(storage)
        assert (one.put().status_code, other.put().status_code) == (201, 200)
        first, second = one.ask("a").json(), other.ask("b").json()
        assert first["trial"] != second["trial"]
        # Each is told to the other server, then to its own.
        assert other.tell(first, 1).json()["verdict"] == "continue"
        assert one.tell(first, 2).json()["verdict"] == "continue"
        again = other.ask("a").json()
        assert again["trial"] == first["trial"]
        assert one.tell(first, 3).status_code == 412
        for epoch in (1, 2, 3):
            assert one.tell(again, epoch).json()["verdict"] == "continue"
        assert {other.tell(again, 4).json()["verdict"], one.tell(again, 4).json()["verdict"]} == {"stop"}
        assert other.say(second, "release").status_code == 200
        assert one.ask("c").json()["trial"] == second["trial"]
        states = [(trial["state"], len(trial["epochs"])) for trial in one.trials()]
        assert states == [("complete", 4), ("running", 0)]
        assert one.stop()[0] == other.stop()[0] == 143
        assert examine(storage).findings == []
