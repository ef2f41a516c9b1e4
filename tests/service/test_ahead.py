"""Steps that are decided on before somebody asks: nobody's until then, given once, and never more than one."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import QUESTION, ask_for, free_port, say, start

MANY = QUESTION | {"trials": 40, "lease_seconds": 60}


def trials(service: httpx.Client, study: str) -> list[dict[str, Any]]:
    return list(service.get(f"{study}/trials").json())


def asked_until_one_is_ahead(service: httpx.Client, study: str) -> list[dict[str, Any]]:
    """Steps of as many jobs as it takes until there is a trial that none of them was given."""
    given: list[dict[str, Any]] = []
    while len(trials(service, study)) == len(given):
        assert len(given) < 30, "none was decided on ahead"
        given.append(ask_for(service, study, f"job {len(given)}"))
        until = time.monotonic() + 0.5
        while len(trials(service, study)) == len(given) and time.monotonic() < until:
            time.sleep(0.05)
    assert len(trials(service, study)) == len(given) + 1
    return given


def test_where_many_ask_the_next_step_is_there_before_it_is_asked_for(service: httpx.Client) -> None:
    study = f"/v1/studies/ahead-{secrets.token_hex(4)}"
    assert service.put(study, json=MANY).status_code == 201
    given = asked_until_one_is_ahead(service, study)
    given.append(ask_for(service, study, "next"))
    assert given[-1]["reason"] not in ("queued", "taken up again")
    given += [ask_for(service, study, f"after {number}") for number in range(3)]
    assert [step["trial"] for step in given] == list(range(len(given)))
    assert len({step["lease"] for step in given}) == len(given)


def test_a_job_that_asks_alone_is_decided_for_by_all_that_was_told(service: httpx.Client, study: str) -> None:
    for _ in range(2):
        step = ask_for(service, study, "one")
        assert say(service, study, step, ":complete", {"value": 0.5, "seconds": 1.0}).status_code == 200
    ask_for(service, study, "one")
    time.sleep(0.5)
    assert len(trials(service, study)) == 3


@pytest.mark.slow
def test_what_was_decided_ahead_is_given_by_whichever_server_is_asked(tmp_path: Path) -> None:
    storage, port = f"sqlite:///{tmp_path}/studies.db", free_port()
    server, study = start(storage, port), "/v1/studies/mnist"
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as service:
            assert service.put(study, json=MANY).status_code == 201
            given = asked_until_one_is_ahead(service, study)
            server.kill()
            server = start(storage, port)
            assert ask_for(service, study, "next")["trial"] == len(given)
            assert len(trials(service, study)) == len(given) + 1
    finally:
        server.kill()
