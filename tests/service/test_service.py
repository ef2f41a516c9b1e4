"""The service as a process, its clients as processes: what is kept, what is refused, what survives a kill."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commands import run_command
from servers import own_database
from serving import QUESTION, accuracy, ask_for, free_port, job, say, served, served_here, start, train

PATH = "/v1/studies/mnist"


def test_a_question_is_put_once_and_another_one_is_refused(service: httpx.Client, study: str) -> None:
    assert service.put(study, json=QUESTION).status_code == 200
    answer = service.put(study, json=QUESTION | {"trials": 5})
    assert answer.status_code == 409
    assert "trials 4 and not 5" in answer.json()["error"]


def test_a_study_is_trained_to_its_end_and_then_gives_its_recommendation(service: httpx.Client, study: str) -> None:
    for _ in range(4):
        assert train(service, study, ask_for(service, study, "one", machine="abacus")) == "stop"
    answer = service.post(f"{study}/trials:ask", json={"client_id": "one"})
    assert answer.status_code == 410, answer.text
    assert answer.json()["recommendation"]["batch_size"] in QUESTION["batch_sizes"]
    trials = service.get(f"{study}/trials").json()
    assert [trial["state"] for trial in trials] == ["complete"] * 4
    assert [len(trial["epochs"]) for trial in trials] == [4] * 4
    assert service.get(f"{study}/report").status_code == 200
    assert service.get(f"{study}/recommendation").json() == {"recommendation": answer.json()["recommendation"]}
    assert "<html" in service.get(f"{study}/report.html").text
    assert len(service.get(f"{study}/trials.csv").text.splitlines()) == 17


def test_a_loss_is_searched_as_a_loss_and_what_nothing_tells_is_asked_for(service: httpx.Client) -> None:
    path = f"/v1/studies/loss-{secrets.token_hex(4)}"
    assert service.put(path, json=QUESTION | {"metric": "val_loss"}).status_code == 201
    for _ in range(4):
        step = ask_for(service, path, "one")
        for epoch in range(1, 5):
            loss = 2.0 - accuracy(step["batch_size"], step["learning_rate"], epoch)
            say(service, path, step, "/epochs", {"epoch": epoch, "value": loss, "seconds": 1.0})
    report = service.get(f"{path}/report").json()
    assert report["metric"] == {"name": "val_loss", "direction": "minimize"}
    trials = service.get(f"{path}/trials").json()
    assert report["recommendation"]["value"] == min(trial["epochs"][-1]["value"] for trial in trials)
    refused = service.put(f"{path}-other", json=QUESTION | {"metric": "closeness"})
    assert refused.status_code == 422 and "direction" in refused.text
    asked = QUESTION | {"metric": "closeness", "direction": "maximize"}
    assert service.put(f"{path}-other", json=asked).status_code == 201


def test_a_client_gets_its_own_open_trial_again_and_another_client_another(service: httpx.Client, study: str) -> None:
    first, again, other = (ask_for(service, study, name) for name in ("one", "one", "two"))
    assert (first["trial"], first["lease"]) == (again["trial"], again["lease"])
    assert other["trial"] != first["trial"]


def test_a_report_sent_five_times_is_kept_once(service: httpx.Client, study: str) -> None:
    step = ask_for(service, study, "one")
    for epoch in (1, 2, 3, 4):
        body = {"epoch": epoch, "value": epoch / 10, "seconds": 1.0}
        verdicts = {say(service, study, step, "/epochs", body).json()["verdict"] for _ in range(5)}
        assert verdicts == {"stop" if epoch == 4 else "continue"}
    (trial,) = service.get(f"{study}/trials").json()
    assert (trial["state"], len(trial["epochs"])) == ("complete", 4)


def test_who_sleeps_past_the_lease_and_reports_late_writes_nothing(service: httpx.Client, study: str) -> None:
    late = ask_for(service, study, "late")
    time.sleep(QUESTION["lease_seconds"] + 1)
    heir = ask_for(service, study, "heir")
    assert heir["trial"] == late["trial"]
    answer = say(service, study, late, "/epochs", {"epoch": 1, "value": 0.99, "seconds": 1.0})
    assert answer.status_code == 412
    assert "Nothing was written" in answer.json()["error"]
    assert service.get(f"{study}/trials").json()[0]["epochs"] == []
    assert say(service, study, heir, ":renew").status_code == 200


@pytest.mark.parametrize(
    ("verb", "body", "state", "note"),
    [
        (":out-of-memory", None, "pruned", "out of memory"),
        (":diverged", None, "pruned", "diverged"),
        (":fail", {"why": "no disk"}, "fail", "no disk"),
        (":complete", {"value": 0.5}, "complete", ""),
        ("/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0, "loss": 1e999}, "pruned", "diverged"),
    ],
)
def test_a_trial_ends_once_however_it_ends(
    service: httpx.Client, study: str, verb: str, body: Any, state: str, note: str
) -> None:
    step = ask_for(service, study, "one")
    headers = {"If-Match": step["lease"], "Content-Type": "application/json"}
    url = f"{study}/trials/{step['trial']}{verb}"
    # Not httpx's own JSON, which has no infinity.
    content = None if body is None else json.dumps(body)
    codes = [service.post(url, content=content, headers=headers).status_code for _ in range(3)]
    assert codes == [200] * 3
    (trial,) = service.get(f"{study}/trials").json()
    assert (trial["state"], trial["note"]) == (state, note)


def test_a_released_trial_is_anyones(service: httpx.Client, study: str) -> None:
    step = ask_for(service, study, "one")
    assert say(service, study, step, ":release").status_code == 200
    assert ask_for(service, study, "two")["trial"] == step["trial"]
    assert say(service, study, step, ":renew").status_code == 412


def test_a_paused_trial_goes_on_elsewhere_from_its_checkpoint(service: httpx.Client, study: str) -> None:
    step, state = ask_for(service, study, "one"), secrets.token_bytes(1 << 20)
    url = f"{study}/trials/{step['trial']}/checkpoint"

    def put(content: bytes, lease: str, epoch: int = 1) -> int:
        query = {"epoch": epoch, "sha256": hashlib.sha256(state).hexdigest()}
        return service.put(url, content=content, params=query, headers={"If-Match": lease}).status_code

    assert put(state, step["lease"]) == 422, "the epoch was not told"
    say(service, study, step, "/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0})
    assert put(state[:1000], step["lease"]) == 422, "cut in the middle"
    assert put(state, step["lease"]) == put(state, step["lease"]) == 200
    say(service, study, step, ":release")
    assert put(state, step["lease"]) == 412
    heir = ask_for(service, study, "two")
    assert (heir["trial"], heir["from_epoch"]) == (step["trial"], 1)
    kept = service.get(url, headers={"If-Match": heir["lease"]})
    assert kept.content == state
    assert kept.headers["etag"] == f'"{hashlib.sha256(state).hexdigest()}"'
    assert service.get(url, headers={"If-Match": step["lease"]}).status_code == 412
    assert train(service, study, heir) == "stop"


def test_no_step_is_above_the_largest_batch_size_of_a_client(service: httpx.Client, study: str) -> None:
    steps = [ask_for(service, study, f"client {n}", largest_batch_size=16) for n in range(3)]
    assert {step["batch_size"] for step in steps} == {16}


def test_a_body_of_a_gigabyte_is_not_read(service: httpx.Client, study: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1024):
            yield b" " * (1 << 20)

    try:
        answer = service.post(f"{study}/trials:ask", content=endless())
        assert answer.status_code == 413
    except httpx.WriteError:
        # The connection was closed under what is still being sent.
        pass
    answer = service.post(f"{study}/trials:ask", content=b" " * 100_000)
    assert answer.status_code == 413


def test_the_trial_of_a_killed_client_is_taken_over(service: httpx.Client, study: str) -> None:
    killed = job(str(service.base_url), study.rsplit("/", 1)[1], "60")
    line = next(killed.lines())
    killed.kill()
    lines = job(str(service.base_url), study.rsplit("/", 1)[1]).ended(60).stdout.splitlines()
    assert lines[-1] == "done"
    assert line in lines
    trials = service.get(f"{study}/trials").json()
    assert [(trial["state"], len(trial["epochs"])) for trial in trials] == [("complete", 4)] * 4


def test_a_job_outlives_its_server(tmp_path: Path) -> None:
    storage, port = f"sqlite:///{tmp_path}/studies.db", free_port()
    server, url = start(storage, port), f"http://127.0.0.1:{port}"
    try:
        assert httpx.put(url + PATH, json=QUESTION).status_code == 201
        worker = job(url, "mnist", "0.3")
        for _ in range(2):
            time.sleep(1.5)
            server.kill()
            server = start(storage, port)
        lines = worker.ended(120).stdout.splitlines()
        trials = httpx.get(f"{url}{PATH}/trials").json()
    finally:
        server.kill()
    assert lines[-1] == "done"
    # None was trained twice: the job went on as if nothing had been.
    assert len(lines) == len(set(lines)) == 17
    assert [(trial["state"], len(trial["epochs"])) for trial in trials] == [("complete", 4)] * 4


def test_two_servers_share_one_postgresql() -> None:
    with own_database("postgresql") as storage, served(storage) as one, served_here(storage) as two:
        assert one.put(PATH, json=QUESTION).status_code == 201
        assert two.put(PATH, json=QUESTION).status_code == 200
        step = ask_for(one, PATH, "a")
        other = ask_for(two, PATH, "b")
        assert step["trial"] != other["trial"]
        # Each trial is told to the server that did not give it.
        assert (train(two, PATH, step), train(one, PATH, other)) == ("stop", "stop")
        for server, client in ((one, "c"), (two, "d")):
            train(server, PATH, ask_for(server, PATH, client))
        assert one.post(f"{PATH}/trials:ask", json={"client_id": "e"}).status_code == 410
        assert two.post(f"{PATH}/trials:ask", json={"client_id": "e"}).status_code == 410
        assert [trial["state"] for trial in one.get(f"{PATH}/trials").json()] == ["complete"] * 4


def batchopt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(["batchopt", *arguments], Path.cwd())


def test_a_token_opens_its_own_study_alone(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    everything = batchopt("token", "--storage", storage).stdout.strip()
    own = batchopt("token", "--storage", storage, "--study", "mnist").stdout.strip()
    gone = batchopt("token", "--storage", storage, "--name", "gone").stdout.strip()
    assert batchopt("token", "--storage", storage, "--revoke", "gone").stdout.strip() == "revoked: gone"
    assert batchopt("token", "--storage", storage, "--list").stdout.splitlines() == ["all: all", "mnist: study mnist"]
    content = (tmp_path / "studies.db").read_bytes()
    assert not any(token.encode() in content for token in (everything, own, gone))
    with served_here(storage, host="0.0.0.0") as service:

        def put(token: str | None, name: str) -> int:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return service.put(f"/v1/studies/{name}", json=QUESTION, headers=headers).status_code

        def get(token: str, path: str) -> int:
            return service.get(path, auth=("anyone", token)).status_code

        assert [put(token, "mnist") for token in (None, "wrong", gone, own, everything)] == [401, 401, 401, 201, 200]
        assert [put(token, "other") for token in (own, everything)] == [403, 201]
        assert service.get("/healthz").status_code == 200
        # A browser asks for the token as a password.
        assert [get(own, path) for path in ("/v1/studies/mnist/trials", "/v1/studies/other/trials")] == [200, 403]
        assert [get(own, path) for path in ("/docs", "/metrics")] == [200, 403]
        evil = {"Origin": "http://evil.example", "Authorization": f"Bearer {everything}"}
        assert service.put("/v1/studies/other", json=QUESTION, headers=evil).status_code == 403


def test_another_address_without_a_token_is_refused(tmp_path: Path) -> None:
    refused = batchopt("serve", "--host", "0.0.0.0", "--storage", f"sqlite:///{tmp_path}/studies.db")
    assert refused.returncode == 2
    assert "batchopt token" in refused.stderr and "Traceback" not in refused.stderr


def test_without_a_token_no_other_name_is_answered(service: httpx.Client) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert service.put("/v1/studies/rebound", json=QUESTION, headers=headers).status_code == 403


def test_whoever_looks_on_sees_each_trial_change(service: httpx.Client, study: str) -> None:
    name = study.rpartition("/")[2]
    step = ask_for(service, study, "one", machine="abacus")
    with service.stream("GET", f"{study}/events") as stream:
        lines = stream.iter_lines()

        def next_trial() -> dict[str, Any]:
            return next(json.loads(line[5:]) for line in lines if line.startswith("data:"))

        first = next_trial()
        assert (first["trial"], first["state"], first["epochs"], first["machine"]) == (0, "running", 0, "abacus")
        say(service, study, step, "/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0})
        told = next_trial()
        assert (told["epochs"], told["value"]) == (1, 0.5)
        say(service, study, step, ":release")
        assert next_trial()["state"] == "paused"
    metrics = service.get("/metrics").text
    assert f'batchopt_trials{{study="{name}",state="paused"}} 1' in metrics
    named = set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE))
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    assert named and all(f"`{each}" in page for each in named)
    assert name in service.get("/").text
    page = service.get(f"/studies/{name}").text
    assert "1 paused" in page and "abacus" in page and "<script" not in page


def test_the_dashboard_is_behind_the_same_door(service: httpx.Client, study: str) -> None:
    name = study.rpartition("/")[2]
    assert "<html" in service.get("/dashboard").text.lower()
    assert name in [found["study_name"] for found in service.get("/api/studies").json()["study_summaries"]]
    assert service.get("/api/studies", headers={"Origin": "http://evil.example"}).status_code == 403
