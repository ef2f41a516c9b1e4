"""A trial's end is one transaction: whoever is killed in it leaves the trial as it was before."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import QUESTION, ask_for, free_port, start

PATH = "/v1/studies/mnist"

SLOW = (
    "create view slow as with recursive n(x) as (select 1 union all select x + 1 from n where x < 1e10) select x from n"
)
WHILE_IT_ENDS = "create trigger ending after update of state on trials begin select count(*) from slow; end"

KEPT = {
    "state": "select state from trials",
    "epochs": "select count(*) from batchopt_epochs",
    "values per epoch": "select count(*) from trial_intermediate_values",
    "values": "select count(*) from trial_values",
    "constraints": "select count(*) from trial_system_attributes",
    "why": "select count(*) from trial_user_attributes where key in ('diverged', 'failure')",
    "leases": "select count(*) from batchopt_leases",
}


def is_written(database: sqlite3.Connection) -> bool:
    """Whether a transaction is under way that goes on for longer than one that only waits for the disk."""
    for _ in range(6):
        try:
            database.execute("begin immediate")
        except sqlite3.OperationalError:
            time.sleep(0.05)
        else:
            database.execute("rollback")
            return False
    return True


@pytest.mark.parametrize(
    ("verb", "body", "end"),
    [
        ("/epochs", {"epoch": 4, "value": 0.5, "seconds": 1.0}, ["COMPLETE", 4, 4, 1, 0, 0, 0]),
        (":out-of-memory", None, ["PRUNED", 3, 3, 0, 1, 0, 0]),
        pytest.param(
            "/epochs",
            {"epoch": 4, "value": 1e999, "seconds": 1.0},
            ["PRUNED", 4, 4, 0, 1, 1, 0],
            marks=pytest.mark.slow,
        ),
        pytest.param(":fail", {"why": "no disk"}, ["FAIL", 3, 3, 0, 0, 1, 0], marks=pytest.mark.slow),
    ],
    ids=["the last epoch", "out of memory", "an epoch that diverged", "failed"],
)
def test_a_server_that_is_killed_while_a_trial_ends_has_ended_nothing_of_it(
    tmp_path: Path, verb: str, body: Any, end: list[Any]
) -> None:
    file, port = tmp_path / "studies.db", free_port()
    url, storage = f"http://127.0.0.1:{port}", f"sqlite:///{file}"
    server = start(storage, port)
    try:
        with httpx.Client(base_url=url, timeout=60) as service:
            question = QUESTION | {"goal": "time", "target": 0.5} if verb == "/epochs" else QUESTION
            assert service.put(PATH, json=question | {"lease_seconds": 60}).status_code == 201
            step = ask_for(service, PATH, "one")

            def tell(verb: str, body: Any) -> int:
                # Not httpx's own JSON, which has no infinity.
                headers = {"If-Match": step["lease"], "Content-Type": "application/json"}
                url, content = f"{PATH}/trials/{step['trial']}{verb}", None if body is None else json.dumps(body)
                return service.post(url, content=content, headers=headers).status_code

            for epoch in (1, 2, 3):
                assert tell("/epochs", {"epoch": epoch, "value": 0.1, "seconds": 1.0}) == 200
            with closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as database:
                database.execute(SLOW)
                database.execute(WHILE_IT_ENDS)

                def last() -> None:
                    with contextlib.suppress(httpx.HTTPError):
                        tell(verb, body)

                telling = threading.Thread(target=last)
                telling.start()
                while not is_written(database):
                    assert telling.is_alive()
                server.kill()
                telling.join()
                kept = [database.execute(query).fetchone()[0] for query in KEPT.values()]
                assert kept == ["RUNNING", 3, 3, 0, 0, 0, 1]
                database.execute("drop trigger ending")
            server = start(storage, port)
            # The job says it again, as it has heard no answer.
            assert [tell(verb, body) for _ in range(2)] == [200, 200]
        with closing(sqlite3.connect(file)) as database:
            assert [database.execute(query).fetchone()[0] for query in KEPT.values()] == end
    finally:
        server.kill()
