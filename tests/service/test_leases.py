"""Whose a trial is: jobs that are killed or late, servers that are killed and started again."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from batchopt.store.doctor.doctor import examine
from served import Server, start_job, value
from servers import own_database

LEASE = 0.6


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose leases last a second."""
    started = Server(f"sqlite:///{tmp_path_factory.mktemp('hasty')}/studies.db", lease=LEASE)
    yield started
    code, err = started.stop()
    assert code == 143 and "Traceback" not in err, err


def asked(server: Server, client: str, study: str) -> dict:  # type: ignore[type-arg]
    """What a job is given, waited for."""
    for _ in range(100):
        answer = server.ask(client, study)
        if answer.status_code == 200:
            return answer.json()
        assert answer.status_code == 204 and answer.headers["Retry-After"] == "1", answer.text
        time.sleep(0.1)
    raise AssertionError("there was nothing to do")


def test_the_same_job_gets_its_own_trial_again_and_what_it_was_called_before_is_late(server: Server) -> None:
    server.put("own")
    first = asked(server, "a", "own")
    assert server.tell(first, 1, "own").json()["verdict"] == "continue"
    again = asked(server, "a", "own")
    assert again["trial"] == first["trial"] and again["lease"] != first["lease"]
    late = server.tell(first, 2, "own")
    assert late.status_code == 412 and "not this lease's" in late.json()["error"]
    assert [epoch["epoch"] for epoch in server.trials("own")[0]["epochs"]] == [1]
    assert asked(server, "b", "own")["trial"] != first["trial"]


def test_an_epoch_is_kept_once_however_often_it_is_said(server: Server) -> None:
    server.put("five")
    step = asked(server, "a", "five")
    for epoch in (1, 2, 3):
        said = {server.tell(step, epoch, "five").json()["verdict"] for _ in range(5)}
        assert said == {"continue"}
        # Said otherwise, it stays what it was.
        assert server.tell(step, epoch, "five", value=0.123).json()["verdict"] == "continue"
    skipped = server.tell(step, 5, "five")
    assert skipped.status_code == 409 and skipped.json()["expected"] == 4
    assert {server.tell(step, 4, "five").json()["verdict"] for _ in range(5)} == {"stop"}
    (trial,) = server.trials("five")
    assert trial["state"] == "complete"
    assert [epoch["value"] for epoch in trial["epochs"]] == [value(step, at) for at in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("verb", "more", "state", "note"),
    [
        ("complete", {}, "complete", ""),
        ("out-of-memory", {}, "pruned", "out of memory"),
        ("diverged", {}, "pruned", "diverged"),
        ("fail", {"why": "no disk\nspace"}, "fail", "no disk\\nspace"),
    ],
)
def test_a_job_says_how_its_trial_ends(server: Server, verb: str, more: dict[str, str], state: str, note: str) -> None:
    study = f"ends-{verb}"
    server.put(study)
    step = asked(server, "a", study)
    server.tell(step, 1, study)
    for _ in range(3):
        ended = server.say(step, verb, study, **more)
        assert (ended.status_code, ended.json()) == (200, {"state": state})
    (trial,) = server.trials(study)
    assert (trial["state"], trial["note"]) == (state, note)
    assert server.tell(step, 2, study).json()["verdict"] == "stop"
    assert len(server.trials(study)[0]["epochs"]) == 1
    after = asked(server, "a", study)
    assert after["trial"] == 1
    if verb == "out-of-memory":
        assert after["batch_size"] < step["batch_size"]


def test_a_trial_without_an_epoch_is_not_complete(server: Server) -> None:
    server.put("none")
    step = asked(server, "a", "none")
    assert server.say(step, "complete", "none").status_code == 409
    assert server.trials("none")[0]["state"] == "running"


def test_a_released_trial_is_the_next_ones(server: Server) -> None:
    server.put("released")
    step = asked(server, "a", "released")
    server.tell(step, 1, "released")
    assert server.say(step, "release", "released").status_code == 200
    assert server.say(step, "renew", "released").status_code == 412
    other = asked(server, "b", "released")
    assert (other["trial"], other["from_epoch"], other["batch_size"]) == (0, 0, step["batch_size"])


@pytest.mark.parametrize("figures", [{"value": None}, {"loss": 1e31}, {"value": 1e300}], ids=["null", "loss", "huge"])
def test_what_is_no_number_has_diverged(server: Server, figures: dict[str, float | None]) -> None:
    study = f"diverged-{'-'.join(figures)}-{next(iter(figures.values()))}".replace("+", "")
    server.put(study)
    step = asked(server, "a", study)
    assert server.tell(step, 1, study, **figures).json()["verdict"] == "stop"
    assert server.trials(study)[0]["note"] == "diverged"


def test_a_job_is_given_what_its_machine_holds(server: Server) -> None:
    server.put("small", trials=8)
    assert server.ask("none", "small", largest_batch_size=8).status_code == 400
    given = []
    while (answer := server.ask("a", "small", largest_batch_size=64)).status_code == 200:
        step = answer.json()
        given.append(step["batch_size"])
        for epoch in (1, 2, 3, 4):
            server.tell(step, epoch, "small")
    assert answer.status_code == 410 and given and set(given) <= {16, 64}


def test_a_silent_jobs_trial_is_anothers_after_its_lease(hasty: Server) -> None:
    hasty.put("silent", trials=1)
    step = asked(hasty, "a", "silent")
    hasty.tell(step, 1, "silent")
    began = time.monotonic()
    other = asked(hasty, "b", "silent")
    assert 0.8 * LEASE <= time.monotonic() - began <= 3 * LEASE
    assert other["trial"] == step["trial"]
    for verb in ("renew", "release", "complete", "diverged"):
        assert hasty.say(step, verb, "silent").status_code == 412
    assert hasty.tell(step, 2, "silent").status_code == 412
    for epoch in (1, 2, 3, 4):
        assert hasty.tell(other, epoch, "silent").status_code == 200
    assert hasty.trials("silent")[0]["state"] == "complete"


def test_a_renewed_trial_is_nobody_elses(hasty: Server) -> None:
    hasty.put("renewed", trials=1)
    step = asked(hasty, "a", "renewed")
    for _ in range(5):
        time.sleep(0.4 * LEASE)
        assert hasty.say(step, "renew", "renewed").status_code == 200
        assert hasty.ask("b", "renewed").status_code == 204


@pytest.mark.slow
def test_a_trial_whose_jobs_go_silent_three_times_fails(hasty: Server) -> None:
    hasty.put("deadly", trials=1)
    assert [asked(hasty, client, "deadly")["trial"] for client in "abc"] == [0, 0, 0]
    while hasty.ask("d", "deadly").status_code == 204:
        time.sleep(0.1)
    (trial,) = hasty.trials("deadly")
    assert trial["state"] == "fail" and "silent 3 times" in trial["note"]


def whole(server: Server, trials: int) -> None:
    """Every trial is complete, with each of its epochs once, as it was trained."""
    found = server.trials()
    assert Counter(trial["state"] for trial in found) == {"complete": trials}
    for trial in found:
        assert [epoch["value"] for epoch in trial["epochs"]] == [value(trial, at) for at in (1, 2, 3, 4)]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_killed_jobs_and_a_killed_server_lose_nothing(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        killed_jobs(f"sqlite:///{tmp_path}/studies.db")
    else:
        with own_database(kind) as storage:
            killed_jobs(storage)


def killed_jobs(storage: str) -> None:
    server = Server(storage, lease=2.0)
    assert server.put(trials=3).status_code == 201
    victim, other = start_job(server, "victim", 0.2), start_job(server, "other", 0.2)
    taken = next(line for line in victim.lines() if line.startswith("told")).split()[1]
    victim.signal(signal.SIGKILL)
    server.kill()
    server = server.again()
    assert victim.ended()[0] == -signal.SIGKILL
    code, said, err = other.ended()
    assert code == 0, err
    assert f"asked {taken}" in said
    # In training when the server was killed, and told to the next one as if nothing had happened.
    first = said[0].split()[1]
    assert [line for line in said if line == f"asked {first}"] == said[:1]
    whole(server, 3)
    assert server.stop()[0] == 143


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_kills_of_jobs_and_servers(kind: str, tmp_path: Path) -> None:
    """Jobs are killed at any moment, and every tenth kill is the server's: nothing is lost, nothing counted twice."""
    trials, kills = 20, 60
    with own_database(kind) if kind != "sqlite" else nullcontext(f"sqlite:///{tmp_path}/studies.db") as storage:
        server, chance = Server(storage, lease=1.0), random.Random(0)
        server.put(trials=trials)
        jobs = [start_job(server, f"job{number}", 0.02) for number in range(3)]
        for kill in range(kills):
            time.sleep(chance.uniform(0.0, 0.3))
            if kill % 10 == 9:
                server.kill()
                server = server.again()
                continue
            number = chance.randrange(len(jobs))
            with suppress(ProcessLookupError):
                jobs[number].signal(signal.SIGKILL)
            jobs[number].ended()
            # Half of them come back under their own name.
            jobs[number] = start_job(server, f"job{number}" if chance.random() < 0.5 else f"new{kill}", 0.02)
        for each in jobs:
            code, _, err = each.ended(120)
            assert code == 0, err
        found = server.trials()
        assert [trial["trial"] for trial in found] == list(range(trials))
        for trial in found:
            if trial["state"] == "complete":
                assert [epoch["value"] for epoch in trial["epochs"]] == [value(trial, at) for at in (1, 2, 3, 4)]
            else:
                # Its jobs were killed three times before the same epoch.
                assert trial["state"] == "fail" and "went silent" in trial["note"]
        assert server.stop()[0] == 143
        assert examine(storage).findings == []
