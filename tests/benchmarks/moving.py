"""How long studies take to move: export, merge and doctor at 100, 1,000 and 10,000 trials of five epochs.

`python tests/benchmarks/moving.py [URL of an empty database on a server]`
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from batchopt.report.show.study_report import read_report
from batchopt.store.access import reading, writing
from batchopt.store.attributes import GUID
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.ledger import Ledger
from batchopt.store.transfer.rows import Rows
from batchopt.store.transfer.study_rows import USER_ATTRIBUTES
from batchopt.store.transfer.transfer import export, merge
from written_study import MACHINE, begin, epoch, new_study

EPOCHS = 5


def write(path: str, trials: int) -> None:
    """A study of that many trials: one that was written as a session writes it, and copies of it."""
    database = open_database(path, create=True)
    ledger = Ledger(database, new_study(database))
    number = begin(ledger, 64)
    for at in range(1, EPOCHS + 1):
        ledger.add_epoch(number, MACHINE, epoch(at), compile_seconds=0.0)
    ledger.complete(number, 0.9)
    database.db.dispose()
    with reading(path) as connection:
        study = Rows(connection).read("mnist")
    (trial,) = study.trials
    with writing(path) as connection:
        target = Rows(connection)
        for number in range(1, trials):
            named = [row for row in trial.rows[USER_ATTRIBUTES] if row["key"] != GUID]
            named.append({"key": GUID, "value_json": json.dumps(uuid.uuid4().hex)})
            copy = dataclasses.replace(trial, rows={**trial.rows, USER_ATTRIBUTES: named})
            target.add_trial(study.study_id, number, copy)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    server = sys.argv[1] if len(sys.argv) > 1 else None
    print(
        f"{'trials':>7} {'file':>7} {'rows':>7} {'merge':>7} {'again':>7} {'doctor':>7} {'report':>7} {'server':>7}  s"
    )
    for trials in (100, 1000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            a, b, c, d = (str(Path(folder, f"{name}.db")) for name in "abcd")
            write(a, trials)
            figures = [
                seconds(lambda: export(a, b)),  # noqa: B023  called at once
                seconds(lambda: export(a, c, "mnist")),  # noqa: B023
                seconds(lambda: merge([a, b], d)),  # noqa: B023
                seconds(lambda: merge([a, b], d)),  # noqa: B023
                seconds(lambda: examine(a)),  # noqa: B023
                seconds(lambda: read_report(a)),  # noqa: B023
            ]
            if server is not None and trials <= 1000:
                figures.append(seconds(lambda: merge([a], server)))  # noqa: B023
            print(f"{trials:>7} " + " ".join(f"{figure:7.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
