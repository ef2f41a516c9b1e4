"""Questions of all kinds, from the first step to the answer."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest
from serving import QUESTION, accuracy, ask_for, say


def through(service: httpx.Client, study: str, **asking: Any) -> Any:
    """Train a study to its end by one job; returns what it is told then."""
    while True:
        answer = service.post(f"{study}/trials:ask", json={"client_id": "one", "machine": "abacus", **asking})
        if answer.status_code == 410:
            return answer.json()
        step, verdict = answer.json(), "continue"
        epoch = step["from_epoch"]
        while verdict == "continue":
            epoch += 1
            value = accuracy(step["batch_size"], step["learning_rate"], epoch)
            told = {"epoch": epoch, "value": value, "seconds": 100 / step["batch_size"]}
            # What is slowest draws least.
            told["energy_joules"] = told["seconds"] * step["batch_size"] ** 2
            verdict = say(service, study, step, "/epochs", told).json()["verdict"]
        assert verdict == "stop" or (asking["can_pause"] and epoch == step["until_epoch"])


@pytest.mark.parametrize(
    "changes",
    [
        {"goal": "time", "target": 0.5},
        {"goal": "energy", "target": 0.5},
        {"goal": "energy", "target": 0.5, "energy_weight": 0.5, "max_power_watts": 300.0},
        pytest.param({"goal": "pareto"}, marks=pytest.mark.slow),
        {"value": "best", "prune": True, "epochs": 8},
        pytest.param(
            {"extra": {"width": {"type": "int", "low": 1, "high": 9}}, "learning_rates": [0.01, 0.01]},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_question_of_any_kind_comes_to_an_answer(service: httpx.Client, changes: dict[str, Any]) -> None:
    study = f"/v1/studies/kind-{secrets.token_hex(4)}"
    assert service.put(study, json=QUESTION | changes).status_code == 201
    done = through(service, study, can_pause=changes.get("prune", False))
    assert done["recommendation"]["batch_size"] in QUESTION["batch_sizes"]
    report = service.get(f"{study}/report").json()
    assert report["goal"]["kind"] == changes.get("goal", "best")
    trials = service.get(f"{study}/trials").json()
    assert len(trials) == 4 and {trial["state"] for trial in trials} <= {"complete", "pruned"}
    if "target" in changes:
        # None is trained beyond it.
        assert all(epoch["value"] < 0.5 for trial in trials for epoch in trial["epochs"][:-1])
    drawn, seconds, expected = (report["recommendation"][name] for name in ("joules", "seconds", "expected"))
    weight = changes.get("energy_weight", 1.0)
    cost = weight * drawn + (1.0 - weight) * changes.get("max_power_watts", 0.0) * seconds
    assert drawn > 0 and (expected == pytest.approx(cost)) == (changes.get("goal") == "energy")
    name = study.rpartition("/")[2]
    for page in (f"{study}/report.html", f"/studies/{name}"):
        assert service.get(page).status_code == 200


def test_a_job_of_a_study_of_energy_is_told_in_one_line_that_it_has_to_tell_its_own(service: httpx.Client) -> None:
    study = f"/v1/studies/energy-{secrets.token_hex(4)}"
    assert service.put(study, json=QUESTION | {"goal": "energy", "target": 0.5}).status_code == 201
    step = ask_for(service, study, "one")
    told = {"epoch": 1, "value": 0.1, "seconds": 1.0}
    refused = say(service, study, step, "/epochs", told)
    assert refused.status_code == 422
    assert refused.json()["error"] == "epoch 1: give `energy_joules`, as the goal of this study is energy"
    assert say(service, study, step, "/epochs", told | {"energy_joules": 9.0}).json()["verdict"] == "continue"


@pytest.mark.slow
def test_a_window_forgets_what_was_true_of_other_data(service: httpx.Client) -> None:
    study = f"/v1/studies/window-{secrets.token_hex(4)}"
    endless = {"window": 12, "trials": None, "until_known": False, "epochs": 1, "lease_seconds": 60}
    assert service.put(study, json=QUESTION | {"window": 12}).status_code == 422
    assert service.put(study, json=QUESTION | endless).status_code == 201
    advised = []
    for best in (16, 256):
        # As data drifts, another batch size becomes the best.
        for _ in range(14):
            step = ask_for(service, study, "one")
            value = 0.5 if step["batch_size"] == best else 0.3 - abs(step["learning_rate"] - 0.01)
            assert say(service, study, step, ":complete", {"value": value, "seconds": 1.0}).status_code == 200
        advised.append(service.get(f"{study}/recommendation").json()["recommendation"]["batch_size"])
    assert advised == [16, 256]
    report = service.get(f"{study}/report").json()
    assert report["notes"][0] == "This study watches its newest trials: what is advised is of 12 of its 28."
    assert report["trials"]["complete"] == 28


def test_jobs_that_tell_no_seconds_get_an_answer_without_any(service: httpx.Client, study: str) -> None:
    for client, value in (("one", 0.5), ("two", 0.6)):
        step = ask_for(service, study, client)
        assert say(service, study, step, ":complete", {"value": value}).status_code == 200
    advised = service.get(f"{study}/recommendation")
    assert advised.status_code == 200 and advised.json()["recommendation"]["batch_size"] in QUESTION["batch_sizes"]
    assert service.get(f"{study}/report.html").status_code == 200
