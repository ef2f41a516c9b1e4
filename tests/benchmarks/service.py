"""What the service takes: `python service.py STORAGE SECONDS [CLIENTS]`.

Clients on threads, each asking, telling five epochs and asking again. Prints quantiles of the answers' times, the
errors, the server's memory before and after, and how many trials have not the epochs that were told of them. Needs
`tests` and `tests/service` on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict

import httpx
import numpy as np
import psutil
from serving import QUESTION, accuracy, free_port, start

PATH = "/v1/studies/load"


def client(
    url: str, name: str, until: float, took: dict[str, list[float]], told: dict[int, int], bad: list[str]
) -> None:
    with httpx.Client(base_url=url, timeout=120) as http:

        def post(what: str, path: str, body: object, lease: str = "") -> httpx.Response:
            began = time.perf_counter()
            answer = http.post(PATH + path, json=body, headers={"If-Match": lease} if lease else {})
            took[what].append(time.perf_counter() - began)
            if answer.status_code not in (200, 204):
                bad.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            return answer

        while time.monotonic() < until:
            answer = post("ask", "/trials:ask", {"client_id": name})
            if answer.status_code != 200:
                time.sleep(0.5)
                continue
            step = answer.json()
            for epoch in range(1, 6):
                value = accuracy(step["batch_size"], step["learning_rate"], epoch)
                body = {"epoch": epoch, "value": value, "seconds": 1.0}
                answer = post("epochs", f"/trials/{step['trial']}/epochs", body, step["lease"])
                if answer.status_code != 200:
                    break
                told[step["trial"]] += 1
                if answer.json()["verdict"] != "continue":
                    # Told after a stop, an epoch is answered and not kept.
                    break


def main(storage: str, seconds: float, clients: int) -> None:
    port = free_port()
    server, url = start(storage, port), f"http://127.0.0.1:{port}"
    try:
        question = QUESTION | {"epochs": 5, "trials": 100_000, "lease_seconds": 120, "prune": True}
        assert httpx.put(url + PATH, json=question, timeout=60).status_code == 201
        idle = psutil.Process(server.pid).memory_info().rss / 1e6
        took: dict[str, list[float]] = defaultdict(list)
        told: dict[int, int] = defaultdict(int)
        bad: list[str] = []
        until = time.monotonic() + seconds
        jobs = [
            threading.Thread(target=client, args=(url, f"client {n}", until, took, told, bad)) for n in range(clients)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        memory = psutil.Process(server.pid).memory_info().rss / 1e6
        trials = httpx.get(f"{url}{PATH}/trials", timeout=120).json()
    finally:
        server.kill()
        server.wait()
    kept = {trial["trial"]: len(trial["epochs"]) for trial in trials}
    print(
        json.dumps(
            {
                "clients": clients,
                "trials": len(trials),
                "states": {s: sum(t["state"] == s for t in trials) for s in ("complete", "pruned", "running", "fail")},
                "lost_or_twice": sum(kept.get(trial, 0) != count for trial, count in told.items()),
                "errors": len(bad),
                "first_errors": bad[:3],
                "server_mb": {"idle": round(idle), "after": round(memory)},
                **{
                    f"{what}_ms": {f"p{q}": round(1000 * float(np.percentile(times, q))) for q in (50, 95, 100)}
                    | {"count": len(times)}
                    for what, times in took.items()
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int((*sys.argv[3:], "64")[0]))
