"""Passwords and tokens are in no log and in no process list."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa
from batchopt.store.access import opened
from batchopt.store.tokens import Right, Tokens
from commands import Running, run_command, worker_processes
from servers import cut_connections, own_database
from serving import QUESTION, free_port

PASSWORD = "geheim-1734"
SERVE = "from batchopt.cli.batchopt import main; main()"


def with_password(url: str) -> str:
    """A server that trusts its own machine takes any."""
    return sa.make_url(url).set(password=PASSWORD).render_as_string(hide_password=False)


def command_lines(of: int) -> list[str]:
    """Those of a process and all that it has started."""
    root = psutil.Process(of)
    return [" ".join(each.cmdline()) for each in (root, *root.children(recursive=True))]


def test_a_servers_log_and_its_place_in_the_process_list_tell_no_secret(tmp_path: Path) -> None:
    """The password comes as PostgreSQL's own variable: on a command line everybody would see it."""
    log = tmp_path / "log"
    with own_database("postgresql") as plain:
        with opened(with_password(plain), create=True) as database:
            token = Tokens(database.db).make(Right("all", None))
        port, environment = free_port(), {**os.environ, "PGPASSWORD": PASSWORD}
        with log.open("w") as written:
            server = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", "--storage", plain, "--port", str(port)],
                env=environment,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            while "serves studies" not in log.read_text():
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            bearer = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=url, timeout=60) as client:
                answers = [
                    client.put("/v1/studies/mnist", json=QUESTION, headers=bearer),
                    client.put("/v1/studies/mnist", json=QUESTION, headers={"Authorization": f"Bearer {token}x"}),
                    client.get("/v1/studies/mnist/trials", params={"token": token}),
                    client.get("/v1/studies/mnist/trials", auth=("anyone", token)),
                    client.get("/v1/studies/absent/trials", params={"token": token}, headers=bearer),
                    client.post("/v1/studies/mnist/trials:ask", json={"token": token}, headers=bearer),
                    client.get("/api/studies", headers=bearer),
                ]
                cut_connections(plain)
                answers.append(client.get("/healthz"))
            lines = command_lines(server.pid)
        finally:
            server.kill()
            server.wait()
    assert [answer.status_code for answer in answers[:7]] == [201, 401, 401, 200, 404, 422, 200]
    said = log.read_text()
    assert len(re.findall(r"(GET|PUT|POST) /\S+ \d+", said)) == len(answers)
    for text in (said, *lines, *(answer.text for answer in answers)):
        assert PASSWORD not in text and token not in text


def test_a_database_that_goes_away_is_said_without_its_password(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with own_database("postgresql") as plain:
        port = free_port()
        with log.open("w") as written:
            arguments = ["serve", "--storage", with_password(plain), "--port", str(port)]
            server = subprocess.Popen(
                [sys.executable, "-c", SERVE, *arguments], stdout=written, stderr=subprocess.STDOUT
            )
        try:
            while "serves studies" not in log.read_text():
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                assert client.put("/v1/studies/mnist", json=QUESTION).status_code == 201
                engine = sa.create_engine(sa.make_url(plain).set(database="test"), isolation_level="AUTOCOMMIT")
                with engine.connect() as connection:
                    name = sa.make_url(plain).database
                    connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
                    connection.execute(sa.text(f"CREATE DATABASE {name}"))
                engine.dispose()
                answers = [client.get(path) for path in ("/healthz", "/v1/studies/mnist/trials", "/metrics", "/")]
                answers.append(client.post("/v1/studies/mnist/trials:ask", json={"client_id": "one"}))
        finally:
            server.kill()
            server.wait()
    assert {answer.status_code for answer in answers} <= {200, 404, 503}
    for text in (log.read_text(), *(answer.text for answer in answers)):
        assert PASSWORD not in text


LISTED = """
import json, psutil, sys
me = psutil.Process()
with open("seen", "a") as file:
    print(*me.cmdline(), json.dumps(me.environ()), file=file)
print(json.dumps({"acc": 1 / int(sys.argv[1])}))
"""


def test_the_command_of_a_study_is_not_told_the_password_of_its_database(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LISTED)
    with own_database("postgresql") as plain:
        question = ["--batch-sizes", "16,32", "--metric", "acc", "--epochs", "1", "--examples", "100", "--trials", "2"]
        command = [sys.executable, "train.py", "{batch_size}"]
        done = run_command(["batchopt", "tune", "--storage", with_password(plain), *question, "--", *command], tmp_path)
    assert done.returncode == 0, done.stderr
    seen = (tmp_path / "seen").read_text()
    assert "train.py" in seen
    for text in (seen, done.stdout, done.stderr):
        assert PASSWORD not in text


@pytest.mark.slow
def test_a_worker_is_in_the_process_list_without_the_password_of_its_studys_database(tmp_path: Path) -> None:
    script = str(Path(__file__).parents[2] / "studies" / "mnist.py")
    small = [
        "--train-examples",
        "2000",
        "--batch-sizes",
        "32..512",
        "--trials",
        "2",
        "--device",
        "cpu",
        "--no-probe",
        "--engine",
        "fused",
    ]
    with own_database("postgresql") as plain:
        study = Running([script, *small, "--storage", with_password(plain)], tmp_path)
        try:
            until, found = time.monotonic() + 60, ""
            while not found and time.monotonic() < until:
                workers = worker_processes(study.pid)
                found = "\n".join(f"{' '.join(worker.cmdline())} {worker.environ()}" for worker in workers)
                time.sleep(0.05)
            assert "batchopt.training.worker" in found
            assert PASSWORD not in found
            done = study.ended(120)
        finally:
            study.kill()
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
