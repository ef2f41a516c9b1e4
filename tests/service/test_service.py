"""The service over HTTP: a real server process, from the question to the recommendation."""

from __future__ import annotations

from served import QUESTION, Server, value


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
