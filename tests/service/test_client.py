"""The client: one file, the standard library alone, in the place of which any language may speak HTTP."""

from __future__ import annotations

import ast
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batchopt.service import client as module
from batchopt.service.client import Client, ServiceError
from served import QUESTION, Server, value

OLDEST = next(map(str, sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python3"))), sys.executable)

JOB = """
import sys, time
sys.path.insert(0, {folder!r})
from client import Client
with Client({url!r}, study={study!r}, client_id="job") as client:
    for step in client.steps():
        for epoch in step:
            print(step.trial, epoch, flush=True)
            time.sleep({seconds})
            step.report(1 / (1 + step.learning_rate), 0.5)
print("done", client.recommendation["batch_size"])
"""


def test_a_study_through_the_client(server: Server) -> None:
    trained = []
    with Client(server.url, study="client", machine="abacus") as client:
        client.put(QUESTION)
        for step in client.steps():
            for epoch in step:
                trained.append((step.trial, epoch))
                step.report(value(vars(step), epoch), 0.5, loss=0.1, peak_bytes=1 << 20)
    assert trained == [(trial, epoch) for trial in range(4) for epoch in (1, 2, 3, 4)]
    assert client.recommendation is not None and client.recommendation["batch_size"] in (16, 64, 256)
    assert {trial["state"] for trial in server.trials("client")} == {"complete"}


def test_how_a_step_may_end(server: Server) -> None:
    ends = [
        lambda step: step.report(float("nan"), 0.5),
        lambda step: step.out_of_memory(),
        lambda step: step.fail("no disk"),
        lambda step: (step.report(0.5, 0.5), step.complete()),
    ]
    with Client(server.url, study="ends", machine="abacus") as client:
        client.put(QUESTION)
        for step, end in zip(client.steps(), ends, strict=False):
            end(step)
    found = [(trial["state"], trial["note"], len(trial["epochs"])) for trial in server.trials("ends")]
    assert found == [
        ("pruned", "diverged", 1),
        ("pruned", "out of memory", 0),
        ("fail", "no disk", 0),
        ("complete", "", 1),
    ]


def train_badly(url: str) -> None:
    with Client(url, study="raises") as client:
        client.put(QUESTION)
        for step in client.steps():
            for _ in step:
                step.report(1 / 0, 0.5)


def idle(client: Client, *, epochs: bool) -> None:
    for step in client.steps():
        if epochs:
            list(step)


def test_a_job_that_raises_lets_its_trial_go(server: Server) -> None:
    with pytest.raises(ZeroDivisionError):
        train_badly(server.url)
    assert server.ask("other", "raises").json()["trial"] == 0


def test_what_was_not_reported_is_said(server: Server) -> None:
    with Client(server.url, study="unsaid") as client:
        client.put(QUESTION)
        with pytest.raises(RuntimeError, match=r"epoch 1 .* was not reported"):
            idle(client, epochs=True)
        with pytest.raises(RuntimeError, match="without a report"):
            idle(client, epochs=False)


def test_a_refusal_is_one_line(server: Server) -> None:
    with Client(server.url, study="absent") as client, pytest.raises(ServiceError, match="no study 'absent'") as told:
        next(client.steps())
    assert told.value.status == 404
    with pytest.raises(ServiceError, match="does not answer") as told:
        Client("http://127.0.0.1:9", study="x", patience=0.1).put(QUESTION)
    assert told.value.status == 0


def start(folder: Path, url: str, study: str, seconds: float) -> subprocess.Popen[str]:
    """A job in a folder with nothing but the client's file."""
    (folder / "client.py").write_text(Path(module.__file__).read_text())
    script = JOB.format(folder=str(folder), url=url, study=study, seconds=seconds)
    # No site packages, and nothing of ours: the standard library, of the oldest Python that is here.
    return subprocess.Popen([OLDEST, "-I", "-S", "-c", script], stdout=subprocess.PIPE, text=True)


def test_the_file_alone_is_a_client_and_a_terminated_job_lets_its_trial_go(server: Server, tmp_path: Path) -> None:
    server.put("copied", trials=2)
    job = start(tmp_path, server.url, "copied", 5.0)
    assert job.stdout is not None and job.stdout.readline().startswith("0 1")
    began = time.monotonic()
    job.send_signal(signal.SIGTERM)
    job.communicate()
    assert job.returncode == 143 and time.monotonic() - began < 4
    assert server.ask("job2", "copied").json()["trial"] == 0


def test_a_job_goes_on_while_the_server_is_killed_and_started_again(storage: str, tmp_path: Path) -> None:
    server = Server(storage)
    server.put(trials=2)
    job = start(tmp_path, server.url, "mnist", 0.2)
    assert job.stdout is not None
    for _ in range(2):
        job.stdout.readline()
    server.kill()
    server = server.again()
    said = job.communicate(timeout=60)[0].splitlines()
    assert job.returncode == 0 and said[-1].startswith("done")
    assert said[:-1] == [f"{trial} {epoch}" for trial in (0, 1) for epoch in (1, 2, 3, 4)][2:]
    assert [len(trial["epochs"]) for trial in server.trials()] == [4, 4]
    assert server.stop()[0] == 143


@pytest.mark.slow
def test_a_lease_is_renewed_while_an_epoch_is_trained(storage: str) -> None:
    server = Server(storage, lease=0.6)
    server.put(trials=1)
    with Client(server.url, study="mnist") as client:
        for step in client.steps():
            for epoch in step:
                if epoch == 2:
                    for _ in range(15):
                        time.sleep(0.1)
                        assert server.ask("thief").status_code == 204
                assert step.report(0.5, 0.1) == ("stop" if epoch == 4 else "continue")
    server.stop()


def test_the_example_of_the_readme_runs(server: Server) -> None:
    section = (Path(__file__).parents[2] / "README.md").read_text().partition("## Jobs in any framework")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    assert "http://127.0.0.1:8077" in example
    script = example.replace("http://127.0.0.1:8077", server.url)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "'batch_size':" in done.stdout and len(server.trials("mine")) == 5


def test_the_client_is_small_and_old_pythons_read_it() -> None:
    source = Path(module.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
    code = "import time; t=time.perf_counter(); import batchopt.service.client; print(time.perf_counter()-t)"
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert min(took) < 0.1, json.dumps(took)
