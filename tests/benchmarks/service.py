"""What the service takes: `python service.py STORAGE [SECONDS] [CLIENTS] [EPOCH_SECONDS]`.

Jobs ask, tell five epochs, and ask again; an epoch takes EPOCH_SECONDS, give or take a third, so that jobs come as they
would, and not all at once; 0 for jobs that do nothing but talk. Prints percentiles of what answers took, those to
`ask` by how many trials there were, the errors, the server's memory before and after, and how many trials have not the
epochs that were told of them. The jobs are coroutines on bare sockets, to leave the processors to the server as real
jobs, on machines of their own, would. Needs `tests` and `tests/service` on PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from typing import Any

import httpx
import numpy as np
import psutil
from serving import QUESTION, accuracy, free_port, start

PATH, EPOCHS, BANDS = "/v1/studies/load", 5, (64, 100, 200, 400)


class Load:
    """What all jobs together have heard."""

    def __init__(self, port: int, until: float, epoch_seconds: float) -> None:
        self.port, self.until, self.epoch_seconds = port, until, epoch_seconds
        self.took: dict[str, list[float]] = defaultdict(list)
        self.told: Counter[int] = Counter()
        self.bad: list[str] = []

    async def job(self, name: str) -> None:
        chance = random.Random(name)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def post(what: str, path: str, body: object, lease: str = "") -> tuple[int, Any]:
            text = json.dumps(body)
            head = f"POST {PATH}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            match = f"If-Match: {lease}\r\n" if lease else ""
            began = time.perf_counter()
            writer.write(f"{head}{match}Content-Length: {len(text)}\r\n\r\n{text}".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(answer.partition("content-length:")[2].split()[0]) if "content-length:" in answer else 0
            content = await reader.readexactly(length)
            self.took[what].append(1000 * (time.perf_counter() - began))
            status = int(answer.split()[1])
            if status not in (200, 204):
                self.bad.append(f"{what}: {status} {content[:200]!r}")
            return status, json.loads(content) if content else None

        await asyncio.sleep(chance.random() * EPOCHS * self.epoch_seconds)
        while time.monotonic() < self.until:
            most = next((most for most in BANDS if len(self.told) <= most), BANDS[-1] + 1)
            status, step = await post(f"ask, to {most} trials", "/trials:ask", {"client_id": name})
            if status != 200:
                await asyncio.sleep(1.0)
                continue
            for epoch in range(1, EPOCHS + 1):
                await asyncio.sleep(self.epoch_seconds * chance.uniform(0.67, 1.33))
                body = {
                    "epoch": epoch,
                    "value": accuracy(step["batch_size"], step["learning_rate"], epoch),
                    "seconds": 1.0,
                }
                status, answer = await post("epochs", f"/trials/{step['trial']}/epochs", body, step["lease"])
                if status != 200:
                    break
                self.told[step["trial"]] += 1
                if answer["verdict"] != "continue":
                    break


async def load(port: int, seconds: float, clients: int, epoch_seconds: float) -> Load:
    heard = Load(port, time.monotonic() + seconds, epoch_seconds)
    await asyncio.gather(*(heard.job(f"job {number}") for number in range(clients)))
    return heard


def main(storage: str, seconds: float, clients: int, epoch_seconds: float) -> None:
    port = free_port()
    server, url = start(storage, port), f"http://127.0.0.1:{port}"
    try:
        question = QUESTION | {"epochs": EPOCHS, "trials": 100_000, "lease_seconds": 120, "prune": False}
        assert httpx.put(url + PATH, json=question, timeout=60).status_code == 201
        process = psutil.Process(server.pid)
        idle, used = process.memory_info().rss / 1e6, sum(process.cpu_times()[:2])
        heard = asyncio.run(load(port, seconds, clients, epoch_seconds))
        memory, used = process.memory_info().rss / 1e6, sum(process.cpu_times()[:2]) - used
        trials = httpx.get(f"{url}{PATH}/trials", timeout=120).json()
    finally:
        server.kill()
    kept = {trial["trial"]: [epoch["epoch"] for epoch in trial["epochs"]] for trial in trials}
    wrong = sum(kept.get(trial) != list(range(1, count + 1)) for trial, count in heard.told.items())
    print(f"{clients} jobs, epochs of {epoch_seconds:g} s, {seconds:g} s; {storage.partition(':')[0]}")
    print(f"{len(trials)} trials, {dict(Counter(trial['state'] for trial in trials))}; lost or twice: {wrong}")
    print(f"errors: {len(heard.bad)} {heard.bad[:3]}")
    print(f"server: {idle:.0f} MB idle, {memory:.0f} MB after; {used:.0f} s of processors")
    for what, times in sorted(heard.took.items()):
        shown = " ".join(f"p{q} {np.percentile(times, q):.0f}" for q in (50, 95, 99, 100))
        print(f"{what}: {len(times)} answers, ms: {shown}")


if __name__ == "__main__":
    seconds, clients, epoch_seconds = (*sys.argv[2:], *("60", "64", "4")[len(sys.argv) - 2 :])
    main(sys.argv[1], float(seconds), int(clients), float(epoch_seconds))
