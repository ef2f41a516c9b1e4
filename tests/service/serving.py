"""Real servers in processes of their own, and jobs that are clients of them.

`python serving.py URL STUDY [EPOCH_SECONDS]` is a job: it asks until the study is done, trains a formula, and prints a
line for each epoch.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
from batchopt.service.client import Done, ask

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


def start(storage: str, port: int, *more: str) -> subprocess.Popen[str]:
    """A server that answers."""
    command = [sys.executable, "-m", "batchopt.cli", "serve", "--storage", storage, "--port", str(port), *more]
    command[1:3] = ["-c", "from batchopt.cli.batchopt import main; main()"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            return process
        except httpx.TransportError:
            assert process.poll() is None, "the server has ended"
            time.sleep(0.1)
    raise TimeoutError("the server does not answer")


@contextmanager
def served(storage: str, *more: str) -> Iterator[httpx.Client]:
    port = free_port()
    process = start(storage, port, *more)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def job(url: str, study: str, *more: str) -> subprocess.Popen[str]:
    command: Sequence[str] = [sys.executable, str(Path(__file__)), url, study, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


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
