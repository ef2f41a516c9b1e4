"""Jobs and servers that are killed at any moment: `python service_kills.py STORAGE [KILLS] [SERVERS] [JOBS]`.

So many jobs train a formula and are killed by signal 9, one after the other, each replaced by another; SERVERS times in
between it is the server that is killed and started again. Prints what was lost: an epoch that a job was told is kept
and that the database has not, or has with another value; and what was counted twice: an epoch with two rows. Needs
`tests` and `tests/service` on PYTHONPATH.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
from batchopt.report.answer.reading import read_study
from batchopt.service.client import Done, ask
from commands import Running
from serving import QUESTION, accuracy, free_port, start

STUDY, EPOCHS, EPOCH_SECONDS, LEASE_SECONDS = "kills", 8, 0.05, 5

PAUSE_S = 2.0
"""At most between two kills: a job takes a second to start, and is to be killed at its work too."""


def train(url: str) -> None:
    """A job: a line for each epoch that the server has said it keeps."""
    with contextlib.suppress(Done):
        while True:
            with ask(url, STUDY) as trial:
                for epoch in trial.epochs():
                    time.sleep(random.uniform(0.5, 1.5) * EPOCH_SECONDS)
                    trial.tell(accuracy(trial.batch_size, trial.learning_rate, epoch), 1.0)
                    print(f"{trial.number} {epoch}", flush=True)


def main(storage: str, kills: int, servers: int, jobs: int) -> None:
    port, chance, began = free_port(), random.Random(0), time.monotonic()
    url, told = f"http://127.0.0.1:{port}", set[tuple[int, int]]()
    server, killed = start(storage, port), 0

    def job() -> Running:
        return Running([str(Path(__file__)), "job", url], Path.cwd())

    def hear(running: Running, signal: int) -> None:
        """End a job, and take note of what it was told; its last line may be cut."""
        running.signal(signal)
        told.update((int(line.split()[0]), int(line.split()[1])) for line in running.lines())
        running.kill()

    question = QUESTION | {"trials": None, "epochs": EPOCHS, "lease_seconds": LEASE_SECONDS, "prune": False}
    assert httpx.put(f"{url}/v1/studies/{STUDY}", json=question, timeout=60).status_code == 201
    running = [job() for _ in range(jobs)]
    for kill in range(kills):
        time.sleep(chance.uniform(0.0, PAUSE_S))
        number = chance.randrange(jobs)
        hear(running[number], 9)
        running[number] = job()
        if (kill + 1) * servers // kills > killed:
            server.kill()
            server, killed = start(storage, port), killed + 1
    # What is under way is told to its end, and let go.
    time.sleep(2 * EPOCHS * EPOCH_SECONDS)
    for each in running:
        hear(each, 15)
    server.kill()
    trials = read_study(storage, STUDY)
    rows = Counter((trial.number, row["epoch"]) for trial in trials for row in trial.epochs)
    right = {
        (trial.number, row["epoch"])
        for trial in trials
        for row in trial.epochs
        if row["value"] == accuracy(trial.batch_size or 0, trial.learning_rate or 0, row["epoch"])
    }
    print(f"{kills} kills of {jobs} jobs, {killed} of servers, {time.monotonic() - began:.0f} s; {storage[:10]}")
    print(
        f"trials: {dict(Counter(trial.state for trial in trials))}; notes: {Counter(t.note for t in trials if t.note)}"
    )
    print(f"epochs: {len(told)} were told, {len(rows)} are kept")
    print(f"lost: {len(told - right)}; twice: {sum(count > 1 for count in rows.values())}")


if __name__ == "__main__":
    if sys.argv[1] == "job":
        train(sys.argv[2])
    else:
        kills, servers, jobs = (*sys.argv[2:], *("1000", "50", "6")[len(sys.argv) - 2 :])
        main(sys.argv[1], int(kills), int(servers), int(jobs))
