"""What is wrong is refused in a line that says what, and leaves no trace in the database."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import QUESTION, ask_for, say

NEW, ASKING, TRIAL = "/v1/studies/new", "{study}/trials:ask", "{study}/trials/0"
EPOCH = {"epoch": 1, "value": 0.5, "seconds": 1.0}
JOB = {"client_id": "a", "machine": "abacus"}
NAN_RATE = json.dumps(QUESTION | {"learning_rates": [math.nan, 1.0]})
STRANGER = "job:" + "0" * 16 + ":" + "0" * 16 + ":0-4"


def question(**changes: Any) -> tuple[str, str, Any, int]:
    return "PUT", NEW, QUESTION | changes, 422


def told(**changes: Any) -> tuple[str, str, Any, int]:
    return "POST", f"{TRIAL}/epochs", EPOCH | changes, 422


# What is sent, its status, and a word of the answer.
BAD = {
    "a path for a name": ("PUT", "/v1/studies/..%2f..%2fetc%2fpasswd", QUESTION, 404, "Not Found"),
    "a long name": ("PUT", f"/v1/studies/{'x' * 600}", QUESTION, 422, "study"),
    "a name that cannot be printed": ("PUT", "/v1/studies/%1b%5b2J", QUESTION, 422, "study"),
    "no JSON": ("PUT", NEW, "{", 422, "JSON"),
    "no object": ("PUT", NEW, [], 422, "body"),
    "nothing": ("PUT", NEW, None, 422, "body"),
    "a form": ("PUT", NEW, b"epochs=3", 422, "body"),
    "an unknown word": (*question(batchsizes=[1]), "batchsizes"),
    "a number in quotes": (*question(examples="1000"), "examples"),
    "true for a number": (*question(trials=True), "trials"),
    "no batch sizes": (*question(batch_sizes=[]), "batch_sizes"),
    "too many batch sizes": (*question(batch_sizes=list(range(1, 2000))), "batch_sizes"),
    "a batch size of 0": (*question(batch_sizes=[0]), "batch_sizes"),
    "a reversed range": (*question(batch_sizes={"low": 64, "high": 16}), "batch sizes"),
    "more than there are examples": (*question(examples=100), "examples"),
    "reversed rates": (*question(learning_rates=[1.0, 0.1]), "learning rates"),
    "three rates": (*question(learning_rates=[0.1, 0.2, 0.3]), "learning_rates"),
    "a rate that is NaN": (
        "PUT",
        NEW,
        json.dumps(QUESTION | {"learning_rates": [math.nan, 1.0]}),
        422,
        "learning rates",
    ),
    "no epochs": (*question(epochs=0), "epochs"),
    "time without a target": (*question(goal="time"), "target"),
    "energy and time without the most power": (
        *question(goal="energy", target=0.5, energy_weight=0.5),
        "max_power_watts",
    ),
    "the most power for energy alone": (*question(goal="energy", target=0.5, max_power_watts=300.0), "max_power_watts"),
    "an energy weight above 1": (*question(goal="energy", target=0.5, energy_weight=2.0), "energy_weight"),
    "an energy weight for another goal": (*question(energy_weight=1.0), "energy weight"),
    "97 for 97 %": (*question(goal="time", target=97.0), "97"),
    "no such goal": (*question(goal="glory"), "goal"),
    "no such direction": (*question(direction="sideways"), "direction"),
    "a direction that nothing tells": (*question(metric="closeness"), "direction"),
    "a short lease": (*question(lease_seconds=0.1), "--lease"),
    "a reversed dimension": (*question(extra={"width": {"type": "int", "low": 9, "high": 1}}), "width"),
    "no choice": (*question(extra={"name": {"type": "categorical", "choices": []}}), "name"),
    "a name of ours": (*question(extra={"batch_size": {"type": "int", "low": 1, "high": 9}}), "batch_size"),
    "a deep nest": ("PUT", NEW, "[" * 10_000, 400, "parsing"),
    "a large integer": ("PUT", NEW, '{"trials": 1' + "0" * 5000 + "}", 400, "parsing"),
    "half of a letter": ("POST", ASKING, '{"client_id": "\\ud800"}', 422, "client_id"),
    "no client": ("POST", ASKING, {"machine": "abacus"}, 422, "client_id"),
    "a client without a name": ("POST", ASKING, JOB | {"client_id": ""}, 422, "client_id"),
    "a client of many letters": ("POST", ASKING, JOB | {"client_id": "x" * 300}, 422, "client_id"),
    "a largest of 0": ("POST", ASKING, JOB | {"largest_batch_size": 0}, 422, "largest_batch_size"),
    "a largest below all": ("POST", ASKING, JOB | {"largest_batch_size": 8}, 422, "smallest"),
    "no such study": ("POST", "/v1/studies/absent/trials:ask", JOB, 404, "absent"),
    "a study that nobody has, read": ("GET", "/v1/studies/absent/trials", None, 404, "absent"),
    "no such trial": ("POST", "{study}/trials/7/epochs", EPOCH, 412, "Nothing was written"),
    "a trial below 0": ("POST", "{study}/trials/-1/epochs", EPOCH, 422, "trial"),
    "a huge trial": ("POST", "{study}/trials/99999999999999999999/epochs", EPOCH, 422, "trial"),
    "another's lease": ("POST", f"{TRIAL}:renew", None, 412, "Nothing was written"),
    "epoch 0": (*told(epoch=0), "epoch"),
    "half an epoch": (*told(epoch=1.5), "epoch"),
    "no value": ("POST", f"{TRIAL}/epochs", {"epoch": 1, "seconds": 1.0}, 422, "value"),
    "seconds that are NaN": ("POST", f"{TRIAL}/epochs", '{"epoch": 1, "value": 1, "seconds": NaN}', 422, "seconds"),
    "seconds below 0": (*told(seconds=-1.0), "seconds"),
    "bytes without end": (*told(peak_memory_bytes=1 << 70), "peak_memory_bytes"),
    "no reason": ("POST", f"{TRIAL}:fail", {"why": ""}, 422, "why"),
    "a long reason": ("POST", f"{TRIAL}:fail", {"why": "x" * 3000}, 422, "why"),
    "a state without its sum": ("PUT", f"{TRIAL}/checkpoint?epoch=1", b"state", 422, "sha256"),
    "an address that is none": ("PUT", f"{TRIAL}/checkpoint?epoch=1&uri=nowhere", None, 422, "uri"),
    "a state that is there and here": ("PUT", f"{TRIAL}/checkpoint?epoch=1&uri=s3://x", b"state", 422, "uri"),
    "no such verb": ("POST", f"{TRIAL}:explode", None, 404, "Not Found"),
    "no such method": ("DELETE", "{study}", None, 405, "Method Not Allowed"),
    "a large body": ("POST", f"{TRIAL}/epochs", " " * 100_000 + "{}", 413, "bytes"),
}


@pytest.fixture(scope="session")
def refusing(service: httpx.Client) -> tuple[str, dict[str, Any]]:
    """A study with a trial that somebody trains."""
    path = "/v1/studies/refusing"
    assert service.put(path, json=QUESTION).status_code == 201
    return path, ask_for(service, path, "holder")


def rows(database: Path) -> dict[str, list[Any]]:
    """All that a database holds."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_in_a_line_and_leaves_no_trace(
    name: str, service: httpx.Client, database: Path, refusing: tuple[str, dict[str, Any]]
) -> None:
    method, path, body, status, word = BAD[name]
    # A server that has just been asked decides on what it may be asked for next, in a turn of the study's.
    until = time.monotonic() + 10
    while rows(database)["batchopt_turns"] and time.monotonic() < until:
        time.sleep(0.05)
    study, before = refusing[0], rows(database)
    content = body.encode() if isinstance(body, str) else body
    said: dict[str, Any] = {"content": content} if isinstance(content, bytes) else {"json": content}
    headers = {"Content-Type": "application/json", "If-Match": STRANGER}
    answer = service.request(method, path.format(study=study), headers=headers, **said)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert word in error and len(error) <= 500 and error.isprintable()
    assert rows(database) == before


def test_a_trial_is_told_of_in_order_and_by_its_holder(service: httpx.Client, study: str) -> None:
    step = ask_for(service, study, "one")
    url = f"{study}/trials/{step['trial']}"
    assert service.post(f"{url}:renew").status_code == 428
    for lease in ("x", "job:%", STRANGER):
        assert service.post(f"{url}:renew", headers={"If-Match": lease}).status_code == 412
    assert service.post(f"{study}/trials/999:renew", headers={"If-Match": step["lease"]}).status_code == 412
    for epoch in (3, 5):
        assert say(service, study, step, "/epochs", EPOCH | {"epoch": epoch}).status_code == 422
    assert say(service, study, step, ":complete").status_code == 422
