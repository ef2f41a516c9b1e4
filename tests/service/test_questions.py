"""Questions of all kinds, from the first step to the answer."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest
from serving import QUESTION, accuracy, say


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
            verdict = say(service, study, step, "/epochs", told).json()["verdict"]
        assert verdict == "stop" or (asking["can_pause"] and epoch == step["until_epoch"])


@pytest.mark.parametrize(
    "changes",
    [
        {"goal": "time", "target": 0.5},
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
    name = study.rpartition("/")[2]
    for page in (f"{study}/report.html", f"/studies/{name}"):
        assert service.get(page).status_code == 200
