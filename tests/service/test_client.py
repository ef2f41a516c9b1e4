"""The client, where what it meets is not a service, or is one no more; and what a job leaves behind that has to end."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import optuna
import pytest
from batchopt.service.client import Done, Refused, Server, ask, put_study
from serving import QUESTION, accuracy, ask_for, job, say

EPOCH = {"epoch": 1, "value": 0.5, "seconds": 1.0}


@contextmanager
def elsewhere(status: int, location: str = "") -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Another server of HTTP; what it was asked for, and with which token."""
    heard: list[tuple[str, str | None]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_CONNECT = do_POST  # noqa: N815  its names

        def log_message(self, *said: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_no_token_carried_along(status: int) -> None:
    with elsewhere(200) as (thief, stolen), elsewhere(status, f"{thief}/x") as (url, heard):
        with pytest.raises(Refused, match="points to http://127") as refused:
            ask(url, "mnist", token="batchopt_secret")
        with pytest.raises(Refused):
            Server(url, "batchopt_secret").call("GET", "/v1/studies/mnist/report")
    assert refused.value.status == status
    assert stolen == [] and [token for _, token in heard] == ["Bearer batchopt_secret"] * 2


def test_the_way_to_this_machine_is_through_no_proxy(
    service: httpx.Client, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with elsewhere(502) as (proxy, heard):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with ask(str(service.base_url), study.rpartition("/")[2]) as trial:
            assert trial.number == 0
        assert heard == []
        with pytest.raises(Refused) as refused:
            ask("http://service.example", "mnist", patience=0.0)
        assert refused.value.status == 502
        assert [path for path, _ in heard] == ["http://service.example/v1/studies/mnist/trials:ask"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8089", "http://", "ftp://127.0.0.1"])
def test_what_is_no_address_is_refused_in_a_line(url: str) -> None:
    with pytest.raises(ValueError, match="is no address of a service"):
        ask(url, "mnist")


def test_a_terminated_job_lets_its_trial_go(service: httpx.Client, study: str) -> None:
    running = job(str(service.base_url), study.rpartition("/")[2], "60")
    assert next(running.lines()) == "trains 0 1"
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.ended(30).returncode == 128 + signal.SIGTERM
    assert ask_for(service, study, "heir")["trial"] == 0
    assert time.monotonic() - began < QUESTION["lease_seconds"]


def test_a_paused_trial_goes_on_from_what_its_job_saved(service: httpx.Client) -> None:
    url, name = str(service.base_url), f"paused-{secrets.token_hex(4)}"
    assert put_study(url, name, QUESTION | {"epochs": 8, "prune": True, "trials": 3})
    goes_on = {}
    with contextlib.suppress(Done):
        while True:
            with ask(url, name, can_pause=True) as trial:
                goes_on[trial.number, trial.from_epoch] = trial.state()
                for epoch in trial.epochs():
                    if trial.tell(accuracy(trial.batch_size, trial.learning_rate, epoch), 1.0) == "pause":
                        state = f"trial {trial.number} after {epoch}"
                        # By turns as bytes and as an address.
                        trial.save(state.encode()) if epoch == 2 else trial.save(uri=f"s3://mine/{trial.number}")
    assert any(epoch == 4 for _, epoch in goes_on)
    for (number, epoch), state in goes_on.items():
        expected = {0: None, 2: f"trial {number} after 2".encode(), 4: f"s3://mine/{number}"}
        assert state == expected[epoch], (number, epoch)


def test_a_handler_of_the_jobs_own_is_left_alone(service: httpx.Client, study: str) -> None:
    name = study.rpartition("/")[2]
    before = signal.getsignal(signal.SIGTERM)
    with ask(str(service.base_url), name):
        assert signal.getsignal(signal.SIGTERM) is not before or before is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before
    own = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ask(str(service.base_url), name):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, own)


@pytest.mark.parametrize("verb", ["/epochs", ":renew", ":release", ":diverged"])
def test_a_study_that_is_deleted_meanwhile_is_not_there(
    service: httpx.Client, study: str, database: Path, verb: str
) -> None:
    name, body = study.rpartition("/")[2], EPOCH if verb == "/epochs" else None
    step = ask_for(service, study, "one")
    optuna.delete_study(study_name=name, storage=f"sqlite:///{database}")
    for _ in range(2):
        late = say(service, study, step, verb, body)
        assert (late.status_code, list(late.json())) == (404, ["error"])
    assert service.post(f"{study}/trials:ask", json={"client_id": "one"}).status_code == 404
    assert service.get(f"{study}/trials").status_code == 404
    # Made anew, it is another one.
    assert service.put(study, json=QUESTION).status_code == 201
    assert say(service, study, step, "/epochs", EPOCH).status_code == 412
    assert ask_for(service, study, "one")["lease"] != step["lease"]


def test_a_study_that_is_deleted_and_put_again_is_made_anew(service: httpx.Client, study: str, database: Path) -> None:
    ask_for(service, study, "one")
    optuna.delete_study(study_name=study.rpartition("/")[2], storage=f"sqlite:///{database}")
    assert service.put(study, json=QUESTION | {"trials": 9}).status_code == 201
    assert ask_for(service, study, "one")["from_epoch"] == 0
    # What the deleted one's lease still holds is for whoever asks after it.
    assert len(service.get(f"{study}/trials").json()) <= 2


def test_the_client_needs_the_standard_library_alone() -> None:
    source = Path(__file__).parents[2] / "optimizer/batchopt/service/client.py"
    run = subprocess.run([sys.executable, "-I", "-S", str(source)], capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stderr) == (0, "")
