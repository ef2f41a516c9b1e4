"""Real servers in processes of their own, and jobs that are clients of them.

`python serving.py URL STUDY [EPOCH_SECONDS]` is a job: it asks until the study is done, trains a formula, and prints a
line for each epoch.
"""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from batchopt.service.app import make_app
from batchopt.service.client import Done, ask
from batchopt.service.guard import Keys
from commands import Running

QUESTION: dict[str, Any] = {
    "batch_sizes": [16, 64, 256],
    "learning_rates": [1e-4, 1e-1],
    "metric": "validation accuracy",
    "epochs": 4,
    "examples": 1000,
    "trials": 4,
    "until_known": False,
    "prune": False,
    "lease_seconds": 5,
}


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(storage: str, port: int, *more: str) -> Running:
    """A server process that answers."""
    process = Running(["batchopt", "serve", "--storage", storage, "--port", str(port), *more], Path.cwd())
    for _ in process.lines():
        return process
    raise AssertionError(process.ended().stderr)


@contextmanager
def served(storage: str, *more: str) -> Iterator[httpx.Client]:
    """A server process, as who speaks to it sees it."""
    port = free_port()
    process = start(storage, port, *more)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        process.kill()


@contextmanager
def served_here(storage: str, *, host: str = "127.0.0.1") -> Iterator[httpx.Client]:
    """A server on a thread of this process."""
    with closing(Keys(storage)) as keys, socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind((host, 0))
        config = uvicorn.Config(make_app(storage, keys), log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def job(url: str, study: str, *more: str) -> Running:
    """A job as a process."""
    return Running([str(Path(__file__)), url, study, *more], Path.cwd())


def ask_for(service: httpx.Client, study: str, client: str, **more: Any) -> dict[str, Any]:
    """A step."""
    answer = service.post(f"{study}/trials:ask", json={"client_id": client, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def say(service: httpx.Client, study: str, step: dict[str, Any], verb: str, body: Any = None) -> httpx.Response:
    headers = {"If-Match": f'"{step["lease"]}"'}
    return service.post(f"{study}/trials/{step['trial']}{verb}", json=body, headers=headers)


def train(service: httpx.Client, study: str, step: dict[str, Any]) -> str:
    verdict = "continue"
    for epoch in range(step["from_epoch"] + 1, step["until_epoch"] + 1):
        value = accuracy(step["batch_size"], step["learning_rate"], epoch)
        answer = say(service, study, step, "/epochs", {"epoch": epoch, "value": value, "seconds": 1.0})
        assert answer.status_code == 200, answer.text
        verdict = answer.json()["verdict"]
    return str(verdict)


def accuracy(size: int, rate: float, epoch: int) -> float:
    return (1 - 0.5**epoch) / (1 + abs(math.log10(rate) + 2) + size / 1000)


if __name__ == "__main__":
    url, study, seconds = (*sys.argv[1:], "0")[:3]
    while True:
        try:
            with ask(url, study) as trial:
                for epoch in trial.epochs():
                    print(f"trains {trial.number} {epoch}", flush=True)
                    time.sleep(float(seconds))
                    trial.tell(accuracy(trial.batch_size, trial.learning_rate, epoch), 1.0)
        except Done:
            print("done", flush=True)
            break
