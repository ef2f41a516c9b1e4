"""What grows with the number of trials of a study: opening it, `list`, `report`, an ask, an epoch.

`python tests/benchmarks/growth.py [STORAGE] [TRIALS ...]` fills a study in a new file, or in an empty database of a
server, and times each at 100, 1,000, 10,000 and 50,000 trials. The first trials are written by a session's ledger as
any study writes them; the others are their rows once more, under other ids, with other learning rates and values. Each
action is one of a process that has imported what it needs; asks and epochs are the medians of several.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from batchopt import Goal, SearchSpace
from batchopt.optuna_private import OPTUNAS_TABLES
from batchopt.question.options import Budget, Options
from batchopt.report.answer.reading import list_studies, read_evidence
from batchopt.report.show.document import document
from batchopt.store.attributes import GUID
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made
from batchopt.store.stamp import Stamp
from batchopt.store.tables import epochs_table
from batchopt.study.session import Session

sys.path.insert(0, str(Path(__file__).parents[1]))

from written_study import MACHINE, STAMP, begin, epoch

EPOCHS, WRITTEN, ASKS = 5, 50, 5
"""Epochs of a trial; trials that a ledger writes one by one; asks of which the median is told."""

QUESTION: Stamp = dataclasses.replace(
    STAMP, space=SearchSpace([16, 32, 64, 128, 256], (1e-4, 1e-1)), goal=Goal(epochs=EPOCHS), search="auto"
)

Figures = dict[str, tuple[float, float]]

TABLES = (
    "trial_values",
    "trial_intermediate_values",
    "trial_params",
    "trial_user_attributes",
    "trial_system_attributes",
)
"""Optuna's, that have rows of trials."""

VALUES = {
    "trial_values": "value",
    "trial_intermediate_values": "intermediate_value",
    epochs_table.name: "value",
}
"""Where a trial's values stand."""


def write_first(storage: str) -> None:
    """A study with its first trials, some complete and some pruned, as a session writes them."""
    database = open_database(storage, create=True)
    study = found_or_made(database, "mnist")
    QUESTION.write(study)
    ledger = Ledger(database, study)
    ledger.add_machine(MACHINE, "fused")
    rng = np.random.default_rng(0)
    for at in range(WRITTEN):
        rate = float(10 ** rng.uniform(-4, -1))
        number = begin(ledger, 16 << at % 5, rate)
        ended = EPOCHS if at % 3 == 0 else 2
        for of in range(1, ended + 1):
            value = 0.9 - 0.02 * abs(np.log10(rate) + 2) - 0.1 / of
            ledger.add_epoch(number, MACHINE, epoch(of, float(value)), 0.0)
        if ended == EPOCHS:
            ledger.complete(number, float(value))
        else:
            ledger.prune(number)
    ledger.release()
    database.db.dispose()


def grow(storage: str, trials: int) -> None:
    """Copies of the first trials' rows until there are so many."""
    engine, rng = sa.create_engine(sa.make_url(_url(storage))), np.random.default_rng(trials)
    kept = OPTUNAS_TABLES["trials"]
    with engine.begin() as connection:
        there = connection.execute(sa.select(sa.func.count()).select_from(kept)).scalar_one()
        first = connection.execute(sa.select(kept).order_by(kept.c.number).limit(WRITTEN)).mappings().all()
        newest = connection.execute(sa.select(sa.func.max(kept.c.trial_id))).scalar_one()
        ids = [row["trial_id"] for row in first]
        tables = [*(OPTUNAS_TABLES[name] for name in TABLES), epochs_table]
        rows = {table: _rows(connection, table, ids) for table in tables}
        for start in range(there, trials, WRITTEN):
            copies = min(WRITTEN, trials - start)
            shift = {old: newest + 1 + at for at, old in enumerate(ids[:copies])}
            newest += copies
            moved = {old: float(rng.normal(0, 1e-3)) for old in shift}
            new = [
                {**row, "trial_id": shift[row["trial_id"]], "number": start + at}
                for at, row in enumerate(first[:copies])
            ]
            connection.execute(kept.insert(), new)
            for table in tables:
                changed = [_moved(table, row, shift, moved) for row in rows[table] if row["trial_id"] in shift]
                if changed:
                    connection.execute(table.insert(), changed)
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    engine.dispose()


def _url(storage: str) -> str:
    return storage if "://" in storage else f"sqlite:///{storage}"


def _rows(connection: sa.Connection, table: sa.Table, ids: list[int]) -> list[Mapping[str, Any]]:
    named = set(table.primary_key.columns.keys()) - {"trial_id", "epoch"}
    found = connection.execute(sa.select(table).where(table.c.trial_id.in_(ids))).mappings()
    return [{name: value for name, value in row.items() if name not in named} for row in found]


def _moved(
    table: sa.Table, row: Mapping[str, Any], shift: Mapping[int, int], moved: Mapping[int, float]
) -> Mapping[str, Any]:
    old = row["trial_id"]
    changed = {**row, "trial_id": shift[old]}
    column = VALUES.get(table.name)
    if column is not None:
        changed[column] = row[column] + moved[old]
    elif row.get("param_name") == "learning_rate":
        changed["param_value"] = min(max(row["param_value"] * (1 + 100 * moved[old]), 1e-4), 1e-1)
    elif row.get("key") == GUID:
        changed["value_json"] = json.dumps(f"{json.loads(row['value_json'])}-{shift[old]}")
    return changed


@contextmanager
def timed(into: list[tuple[float, float]]) -> Iterator[None]:
    """Append the seconds that something takes, and those of them that this process computes."""
    began, computed = time.perf_counter(), time.process_time()
    yield
    into.append((time.perf_counter() - began, time.process_time() - computed))


def joined(storage: str) -> Session:
    """A session of the study that may always start another trial."""
    budget = Budget(trials=10**6, until_known=False)
    return Session.open("mnist", storage, QUESTION, options=Options(), budget=budget)


def measure(storage: str) -> Figures:
    """Milliseconds that each action takes, and those of them that this process computes."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("list", "report", "open", "ask", "epoch")}
    with timed(found["list"]):
        list_studies(storage)
    with timed(found["report"]):
        document(read_evidence(storage, "mnist").report, details=True)
    with timed(found["open"]):
        session = joined(storage)
        # The first look at all trials, which the first ask waits for.
        session.ledger.in_turn(session._shared.unheld)
    with session:
        for at in range(ASKS):
            with timed(found["ask"]):
                step = session.ask()
            assert step is not None
            told = [epoch(of, 0.5 + 0.01 * at) for of in range(step.from_epoch + 1, step.until_epoch + 1)]
            for figures in told:
                with timed(found["epoch"]):
                    session.tell(step.trial, MACHINE, figures, checkpoint=b"state")
            session.let_go(step.trial)
        session.give_up(session._shared.left())
    return {
        name: (
            1000 * statistics.median(wall for wall, _ in seconds),
            1000 * statistics.median(cpu for _, cpu in seconds),
        )
        for name, seconds in found.items()
    }


def table(figures: Mapping[int, Figures]) -> str:
    """The figures, and what they grow by, as Markdown."""
    sizes = list(figures)
    lines = [
        f"| ms | {' | '.join(f'{size:,}' for size in sizes)} | most over least |",
        "|---|" + "---|" * (len(sizes) + 1),
    ]
    for name in figures[sizes[0]]:
        row = [figures[size][name] for size in sizes]
        shown = " | ".join(f"{wall:,.0f} ({cpu:,.0f})" for wall, cpu in row)
        lines.append(f"| {name} | {shown} | {row[-1][0] / row[0][0]:.1f} |")
    return "\n".join(lines)


def run(storage: str, sizes: list[int], say: Callable[[str], None] = print) -> dict[int, Figures]:
    """Fill a database and measure it at each size."""
    write_first(storage)
    figures: dict[int, Figures] = {}
    for at, size in enumerate(sizes):
        grow(storage, size)
        if at == 0:
            measure(storage)  # imports
            grow(storage, size)
        figures[size] = measure(storage)
        say(f"{size}: " + ", ".join(f"{name} {wall:.0f} ms" for name, (wall, _) in figures[size].items()))
    return figures


if __name__ == "__main__":
    given = sys.argv[1:]
    sizes = [int(text) for text in given if text.isdecimal()] or [100, 1_000, 10_000, 50_000]
    with tempfile.TemporaryDirectory() as folder:
        storage = next((text for text in given if not text.isdecimal()), f"{folder}/growth.db")
        print(table(run(storage, sizes)))
