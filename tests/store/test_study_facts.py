"""What is kept of a study as a whole: machines that join together are all kept, a cut connection costs nothing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import optuna
import pytest
import sqlalchemy as sa
from batchopt import Options
from batchopt.events import Event, Noted
from batchopt.measured import MemoryRow, StepTime
from batchopt.report.show.dashboard import bring_up_to_date
from batchopt.store.attributes import ENGINES, MEMORY_LIMITS
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.measurements import Measurements, measured_on
from batchopt.store.records import Records
from batchopt.study.opening import opened_ledger
from servers import cut_connections
from written_study import MACHINE, PROGRAM, SPACE, STAMP, begin, epoch, new_study

STEP_TIMES = [StepTime(size, size / 2**20, spread_s=0.25, epoch_overhead_s=0.5, count=3) for size in (16, 64)]
MEMORY = [MemoryRow(16, 1 << 20, True), MemoryRow(64, None, False)]


def test_machines_that_join_in_the_same_moment_are_all_kept(any_storage: str) -> None:
    """Four processes on each of three machines: no machine and no measurement is lost, nobody in the way."""
    made = open_database(any_storage, create=True)
    new_study(made)
    machines = [dataclasses.replace(MACHINE, cores=cores) for cores in (1, 2, 3)]
    together = threading.Barrier(12)

    def join(at: int) -> None:
        database, machine = open_database(any_storage, create=False), machines[at % 3]
        ledger = Ledger(database, optuna.load_study(study_name="mnist", storage=database.storage))
        key = measured_on(machine, PROGRAM, "fused")
        for write in (
            lambda: ledger.add_machine(machine, "fused"),
            lambda: ledger.add_measurements(key, machine.cores << 30, STEP_TIMES, MEMORY, anew=True),
        ):
            together.wait(60)
            write()
        database.db.dispose()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(join, range(12)))
    names = [machine.fingerprint for machine in machines]
    attributes = optuna.load_study(study_name="mnist", storage=made.storage).user_attrs
    assert attributes[ENGINES] == dict.fromkeys(names, "fused")
    assert attributes[MEMORY_LIMITS] == {machine.fingerprint: machine.cores << 30 for machine in machines}
    assert set(Records(made.db).machines()) == set(names)
    for machine in machines:
        key = measured_on(machine, PROGRAM, "fused")
        assert Measurements(made.db).step_times(key) == STEP_TIMES
        assert Measurements(made.db).memory(key, machine.cores << 30) == MEMORY
    made.db.dispose()


@contextmanager
def cut_before(engine: sa.Engine, statement: int) -> Iterator[Callable[[], bool]]:
    """Have the server cut all connections to a database before one of its statements; tells whether it came to that."""
    left = statement
    url = engine.url.render_as_string(hide_password=False)

    def count(*anything: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            cut_connections(url)

    sa.event.listen(engine, "before_cursor_execute", count)
    yield lambda: left <= 0
    sa.event.remove(engine, "before_cursor_execute", count)


def test_a_study_is_made_whatever_statement_the_connection_breaks_at(
    server_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, stamped, checked and opened by the front door, which knows no worker yet."""
    database = open_database(server_storage, create=True)
    monkeypatch.setattr("batchopt.study.opening.open_database", lambda *arguments, **options: database)
    heard: list[Event] = []
    for statement in range(1, 200):
        with cut_before(database.db, statement) as was_cut:
            name, options = f"cut at {statement}", Options(seed=STAMP.seed)
            ledger, stamp = opened_ledger(
                name, server_storage, STAMP, options, listener=heard.append, check=lambda: None, held=ExitStack()
            )
            ledger.elapsed()
        assert stamp.space == SPACE
        assert ledger.count_started() == 0
        if not was_cut():
            break
    assert statement > 10
    names = optuna.get_all_study_names(database.storage)
    assert sorted(names) == sorted(f"cut at {number}" for number in range(1, statement + 1))
    assert heard == []
    database.db.dispose()


@pytest.mark.slow
def test_a_studys_last_word_is_read_whatever_statement_the_connection_breaks_at(server_storage: str) -> None:
    """A server that restarts when all trials are trained does not cost their report."""
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database))
    number = begin(ledger, 64)
    for figures in (epoch(1, 0.5), epoch(2, 0.75)):
        ledger.add_epoch(number, MACHINE, figures, 0.0)
    ledger.complete(number, 0.75)
    heard: list[Event] = []
    for statement in (*range(1, 40, 3), *range(40, 2000, 40)):
        with cut_before(database.db, statement) as was_cut:
            evidence = bring_up_to_date(ledger, heard.append)
        assert evidence is not None, [event.text for event in heard if isinstance(event, Noted)]
        assert evidence.report.trials == {"complete": 1}
        if not was_cut():
            break
    assert statement > 10
    assert heard == []
    database.db.dispose()
