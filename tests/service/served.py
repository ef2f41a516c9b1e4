"""`batchopt serve` as a process of its own, and jobs that speak to it: a formula in the place of training.

The processes are forked from one that has imported what all of them import, as in `commands.py`: most of their time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["batchopt.cli.batchopt", "batchopt.study.study", "batchopt.service.serving", "batchopt.study.searching", "httpx"]
)

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


class Running:
    """A process that goes on, and what it writes.

    Args:
        target, arguments: what it does.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ("out", "err")]
        for output in self._outputs:
            output.touch()
        self._process = _PROCESSES.Process(target=_become, args=(target, arguments, list(map(str, self._outputs))))
        self._process.start()
        self.pid = self._process.pid or 0

    def lines(self) -> Iterator[str]:
        """The lines of its standard output as they come, until it ends."""
        with self._outputs[0].open() as output:
            line = ""
            while True:
                ended = self._process.exitcode is not None
                line += output.readline()
                if line.endswith("\n"):
                    yield line.rstrip()
                    line = ""
                elif ended:
                    return
                else:
                    time.sleep(0.01)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, timeout: float = 60) -> tuple[int, list[str], str]:
        """Its exit code, lines of standard output, and standard error, once it has ended."""
        self._process.join(timeout)
        code, out, err = self._process.exitcode, *(output.read_text() for output in self._outputs)
        if code is None:
            self._process.kill()
        self._process.join()
        self._process.close()
        self._folder.cleanup()
        assert code is not None, f"it did not end: {out}{err}"
        return code, out.splitlines(), err


def _become(target: Callable[..., None], arguments: tuple[Any, ...], outputs: list[str]) -> None:
    for number, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), number)
    target(*arguments)


def _serve(arguments: list[str]) -> None:
    """`batchopt serve`, with leases as short as tests need them."""
    from batchopt.question import options

    options.MIN_LEASE_SECONDS = 0.1
    sys.argv = ["batchopt", "serve", *arguments]
    from batchopt.cli.batchopt import main

    main()


class Server:
    """A server process.

    Args:
        storage: its database.
        arguments: of `batchopt serve`.
        lease: seconds of one.
        port: of an earlier one, for one that was started again.
        token: said with every call.
    """

    def __init__(self, storage: str, *arguments: str, lease: float = 30.0, port: int = 0, token: str = "") -> None:
        self.storage, self.lease = storage, lease
        self._arguments = arguments
        said = ["--storage", storage, "--lease", str(lease), "--port", str(port), *arguments]
        self.process = Running(_serve, said)
        first = next(self.process.lines(), None)
        assert first is not None, self.process.ended()[2]
        self.url = first.split()[0]
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
        self.process.signal(signal.SIGKILL)
        self.process.ended()

    def stop(self) -> tuple[int, str]:
        """End it as a user does; returns its exit code and what it has written to standard error."""
        self.http.close()
        self.process.signal(signal.SIGTERM)
        code, _, err = self.process.ended()
        return code, err


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


def start_job(server: Server, client: str, epoch_seconds: float = 0.0, study: str = "mnist") -> Running:
    """A job as a process of its own."""
    return Running(job, server.url, study, client, epoch_seconds)
