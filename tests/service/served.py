"""`batchopt serve` as a process of its own, and jobs that speak to it: a formula in the place of training.

`python served.py ARGUMENTS` is `batchopt serve ARGUMENTS`, with leases as short as tests need them.
`python served.py job URL STUDY NAME [EPOCH_SECONDS]` is a job that goes on until the study is done, or it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

QUESTION: dict[str, Any] = {
    "batch_sizes": [16, 64, 256],
    "learning_rates": {"low": 1e-4, "high": 1e-1},
    "metric": {"name": "accuracy", "direction": "maximize"},
    "goal": {"kind": "best", "epochs": 4},
    "train_examples": 1000,
    "trials": 4,
}


def value(step: dict[str, Any], epoch: int) -> float:
    """What a trial comes to after so many epochs."""
    return (1 - 0.5**epoch) / (1 + abs(step["learning_rate"] - 0.01) + step["batch_size"] / 1000)


class Server:
    """A server process.

    Args:
        storage: its database.
        arguments: of `batchopt serve`.
        port: of an earlier one, for one that was started again.
    """

    def __init__(self, storage: str, *arguments: str, lease: float = 30.0, port: int = 0, token: str = "") -> None:
        self.storage, self._arguments, self.lease = storage, arguments, lease
        command = [sys.executable, __file__, "--storage", storage, "--lease", str(lease), "--port", str(port)]
        # A pipe that nobody reads is full some time.
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115  open for as long as the process
        output = {"stdout": subprocess.PIPE, "stderr": self._err}
        self.process = subprocess.Popen([*command, *arguments], text=True, **output)  # type: ignore[call-overload]
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert self.said.startswith("http"), self.stopped()
        self.url = self.said.split()[0]
        self.http = httpx.Client(base_url=self.url, timeout=60)
        if token:
            self.http.headers["Authorization"] = f"Bearer {token}"

    def again(self) -> Server:
        """Another server in the place of this one, which has been killed."""
        return Server(self.storage, *self._arguments, lease=self.lease, port=int(self.url.rpartition(":")[2]))

    def put(self, study: str = "mnist", **changes: Any) -> httpx.Response:
        return self.http.put(f"/v1/studies/{study}", json=QUESTION | changes)

    def ask(self, client: str, study: str = "mnist", **more: Any) -> httpx.Response:
        said = {"client_id": client, "machine": "abacus"} | more
        return self.http.post(f"/v1/studies/{study}/trials:ask", json=said)

    def tell(self, step: dict[str, Any], epoch: int, study: str = "mnist", **more: Any) -> httpx.Response:
        said = {"lease": step["lease"], "epoch": epoch, "value": value(step, epoch), "seconds": 0.5} | more
        return self.http.post(f"/v1/studies/{study}/trials/{step['trial']}/epochs", json=said)

    def say(self, step: dict[str, Any], verb: str, study: str = "mnist", **more: Any) -> httpx.Response:
        return self.http.post(
            f"/v1/studies/{study}/trials/{step['trial']}:{verb}", json={"lease": step["lease"]} | more
        )

    def trials(self, study: str = "mnist") -> list[dict[str, Any]]:
        return self.http.get(f"/v1/studies/{study}/trials").json()["trials"]

    def kill(self) -> None:
        self.http.close()
        self.process.kill()
        self.stopped()

    def stop(self) -> tuple[int, str]:
        """End it as a user does; returns its exit code and what it has written to standard error."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        err = self.stopped()
        return self.process.returncode, err

    def stopped(self) -> str:
        """What it has written to standard error, once it has ended."""
        self.process.communicate(timeout=30)
        with self._err as file:
            file.seek(0)
            return file.read()


def job(url: str, study: str, client: str, epoch_seconds: float) -> None:
    """Train whatever there is, and say so in lines; what no server answers is said again."""

    def post(path: str, said: dict[str, Any]) -> httpx.Response:
        while True:
            try:
                return http.post(path, json=said)
            except httpx.TransportError:
                time.sleep(0.1)

    with httpx.Client(base_url=f"{url}/v1/studies/{study}", timeout=60) as http:
        while (asked := post("/trials:ask", {"client_id": client, "machine": "abacus"})).status_code != 410:
            if asked.status_code != 200:
                time.sleep(0.1)
                continue
            step = asked.json()
            print("asked", step["trial"], flush=True)
            for epoch in range(1, step["until_epoch"] + 1):
                time.sleep(epoch_seconds)
                said = {"lease": step["lease"], "epoch": epoch, "value": value(step, epoch), "seconds": 0.5}
                answer = post(f"/trials/{step['trial']}/epochs", said)
                print("told", step["trial"], epoch, answer.status_code, flush=True)
                if answer.status_code != 200 or answer.json()["verdict"] != "continue":
                    break


def start_job(server: Server, client: str, epoch_seconds: float = 0.0, study: str = "mnist") -> subprocess.Popen[str]:
    """A job as a process of its own."""
    command = [sys.executable, __file__, "job", server.url, study, client, str(epoch_seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    if sys.argv[1] == "job":
        job(*sys.argv[2:5], float(sys.argv[5]))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from batchopt.question import options

        options.MIN_LEASE_SECONDS = 0.1
        sys.argv = ["batchopt", "serve", *sys.argv[1:]]
        from batchopt.cli.batchopt import main

        main()
