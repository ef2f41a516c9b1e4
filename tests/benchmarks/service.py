"""What the service bears: jobs that ask, tell five epochs and begin again.

`PYTHONPATH=tests:tests/service python tests/benchmarks/service.py [STORAGE] [CLIENTS] [SECONDS] [SEARCH]`
Prints percentiles of what calls take, in ms, how many trials came to an end, and what the server's memory is.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter, defaultdict
from threading import Thread
from typing import Any

import numpy as np
import psutil
from served import Server, value

EPOCHS, PROCESSES = 5, 2


class Job:
    """One job, on a connection of its own."""

    def __init__(self, port: int, name: str, until: float) -> None:
        self.took: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[str] = Counter()
        self._name, self._until = name, until
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def run(self) -> None:
        while time.time() < self._until:
            status, step = self._say("ask", "trials:ask", {"client_id": self._name, "machine": "abacus"})
            if status == 410:
                return
            if status != 200:
                time.sleep(0.5)
                continue
            for epoch in range(1, EPOCHS + 1):
                time.sleep(0.2)
                said = {"lease": step["lease"], "epoch": epoch, "value": value(step, epoch), "seconds": 0.2}
                if self._say("epochs", f"trials/{step['trial']}/epochs", said)[0] != 200:
                    break

    def _say(self, kind: str, path: str, said: dict[str, Any]) -> tuple[int, Any]:
        began = time.perf_counter()
        self._http.request("POST", f"/v1/studies/mnist/{path}", json.dumps(said), {"Content-Type": "application/json"})
        answer = self._http.getresponse()
        text = answer.read()
        self.took[kind].append(1000 * (time.perf_counter() - began))
        self.statuses[f"{kind} {answer.status}"] += 1
        return answer.status, json.loads(text) if text else None


def train(port: int, names: list[str], until: float) -> tuple[dict[str, list[float]], Counter[str]]:
    jobs = [Job(port, name, until) for name in names]
    threads = [Thread(target=job.run) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = {kind: [each for job in jobs for each in job.took[kind]] for kind in ("ask", "epochs")}
    return took, sum((job.statuses for job in jobs), Counter())


def main(storage: str, clients: int, seconds: float, search: str) -> None:
    server = Server(storage)
    server.put(trials=100_000, goal={"kind": "best", "epochs": EPOCHS}, search=search)
    port, until = int(server.url.rpartition(":")[2]), time.time() + seconds
    names = [f"job{number}" for number in range(clients)]
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        shares = [(port, names[share::PROCESSES], until) for share in range(PROCESSES)]
        results = pool.starmap(train, shares)
    for kind in ("ask", "epochs"):
        took = [each for found, _ in results for each in found[kind]]
        shown = {f"p{share}": round(float(np.percentile(took, share))) for share in (50, 95, 99)}
        print(kind, len(took), {**shown, "max": round(max(took))})
    print(dict(sum((statuses for _, statuses in results), Counter())))
    print("server", round(psutil.Process(server.process.pid).memory_info().rss / 1e6), "MB")
    found = server.trials()
    twice = [trial for trial in found if [epoch["epoch"] for epoch in trial["epochs"]] != list(range(1, EPOCHS + 1))]
    print(Counter(trial["state"] for trial in found), "unfinished:", len(twice))
    server.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        given = dict(enumerate(sys.argv[1:]))
        storage = given.get(0) or f"sqlite:///{folder}/studies.db"
        main(storage, int(given.get(1, 64)), float(given.get(2, 60)), given.get(3, "auto"))
