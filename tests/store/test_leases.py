"""What keeps several processes apart, on each kind of database: real servers, real processes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from batchopt.errors import StorageError, StorageFailed
from batchopt.store import connecting
from batchopt.store.connecting import ABANDONED, engine_to
from batchopt.store.database import check_storage, open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.leases import Deleted, LeaseLost, TurnLost
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made
from batchopt.store.tables import (
    checkpoints_table,
    database_clock,
    epochs_table,
    leases_table,
    optunas_studies,
    schema_table,
    turns_table,
)
from batchopt.store.transactions import Transactions, passing, reason
from servers import PrivatePostgres, cut_connections, own_database
from written_study import MACHINE, SPACE, begin, epoch, new_study

TESTS = Path(__file__).parents[1]

MAKE_AND_BEGIN = """
import sys, time
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from written_study import MACHINE, SPACE, STAMP, epoch

storage, start, count = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
time.sleep(max(0.0, start - time.time()))
database = open_database(storage, create=True)
ledger = Ledger(database, found_or_made(database, "mnist"))
stamp_if_unmade(ledger, STAMP)
mine = []
while True:
    with ledger.turn():
        if ledger.count_started() >= count:
            break
        number = ledger.study.ask(SPACE.distributions()).number
        assert ledger.begin(number)
    mine.append(number)
    ledger.add_epoch(number, MACHINE, epoch(1, 0.5), 0.0, checkpoint=b"state")
    ledger.add_epoch(number, MACHINE, epoch(2, 0.75), 0.0)
    ledger.complete(number, 0.75)
print(*mine)
"""


def count(ledger_engine: sa.Engine, table: sa.Table) -> int:
    with ledger_engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


@pytest.mark.parametrize(
    "any_storage", ["sqlite", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)], indirect=True
)
def test_three_processes_in_the_same_instant_make_one_study_and_share_its_trials(any_storage: str) -> None:
    """No table, no study, no stamp: one of them makes each, and of 12 trials each is trained once."""
    start = str(time.time() + 3)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE_AND_BEGIN, any_storage, start, "12"],
            cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert sorted(int(number) for out, _ in said for number in out.split()) == list(range(12))
    database = open_database(any_storage, create=False)
    study = optuna.load_study(study_name="mnist", storage=database.storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 12
    assert all(trial.intermediate_values == {1: 0.5, 2: 0.75} for trial in study.trials)
    counts = [count(database.db, table) for table in (epochs_table, leases_table, checkpoints_table, turns_table)]
    assert counts == [24, 0, 0, 0]
    assert count(database.db, schema_table) == 1
    database.db.dispose()


def test_a_trial_that_was_taken_over_refuses_its_first_owner_on_every_database(any_storage: str) -> None:
    database = open_database(any_storage, create=True)
    first = Ledger(database, new_study(database))
    number = begin(first, 64)
    first.add_epoch(number, MACHINE, epoch(1, 0.5), 0.0, checkpoint=b"one epoch")
    with database.db.begin() as connection:
        connection.execute(leases_table.update().values(expires_at=database_clock() - 1))
    heir = Ledger(database, optuna.load_study(study_name="mnist", storage=database.storage))
    assert heir.begin(number)
    assert heir.checkpoint(number) == (1, b"one epoch")
    with pytest.raises(LeaseLost):
        first.add_epoch(number, MACHINE, epoch(2, 0.125), 0.0, checkpoint=b"late")
    heir.add_epoch(number, MACHINE, epoch(2, 0.75), 0.0)
    heir.complete(number, 0.75)
    with pytest.raises(LeaseLost):
        first.complete(number, 0.125)
    (trial,) = heir.study.trials
    assert (trial.value, trial.intermediate_values) == (0.75, {1: 0.5, 2: 0.75})
    database.db.dispose()


def test_a_connection_that_is_cut_again_and_again_costs_nothing(server_storage: str) -> None:
    """Cut before every write: each is there once at the end, and the study is told of nothing shorter than a second."""
    said: list[str] = []
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database), transactions=Transactions(database.db.url, say=said.append))
    for at in range(3):
        number = begin(ledger, 64)
        for figures in (epoch(1, 0.5), epoch(2, 0.75)):
            assert cut_connections(server_storage) >= 1
            ledger.add_epoch(number, MACHINE, figures, 0.0, checkpoint=b"state")
        cut_connections(server_storage)
        ledger.complete(number, 0.75)
        assert ledger.owned() == []
        assert number == at
    assert [trial.value for trial in ledger.study.trials] == [0.75] * 3
    assert said == []
    database.db.dispose()


def test_a_transaction_that_is_cut_in_its_middle_is_done_again_whole(server_storage: str) -> None:
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database))
    number = begin(ledger, 64)
    tried: list[int] = []

    def write() -> None:
        tried.append(1)
        with database.db.begin() as connection:
            connection.execute(leases_table.update().values(expires_at=leases_table.c.expires_at + 1000))
            if len(tried) < 3:
                cut_connections(server_storage)
            connection.execute(leases_table.update().values(expires_at=leases_table.c.expires_at + 1000))

    ledger.transactions.again(write)
    assert len(tried) == 3
    with database.db.connect() as connection:
        left = connection.execute(sa.select(leases_table.c.expires_at - database_clock())).scalar_one()
    assert 2000 < left < 2040
    ledger.complete(number, 0.5)
    database.db.dispose()


def test_what_does_not_pass_is_not_tried_again(any_storage: str) -> None:
    database = open_database(any_storage, create=True)
    tried: list[int] = []

    def wrong() -> None:
        tried.append(1)
        with database.db.begin() as connection:
            connection.execute(sa.text("select x from nowhere"))

    with pytest.raises(StorageError, match="nowhere"):
        Transactions(database.db.url).again(wrong)
    assert len(tried) == 1
    database.db.dispose()


def test_a_server_that_stays_away_is_given_up_in_one_line() -> None:
    """Nothing listens there."""
    engine = sa.create_engine("postgresql+psycopg://postgres@127.0.0.1:1/test")
    said: list[str] = []
    transactions = Transactions(engine.url, say=said.append, patience=1.5)
    with pytest.raises(StorageError, match=r"127.0.0.1:1/test could not be used for \d s: .*refused.*the same command"):
        transactions.again(lambda: engine.connect())
    assert len(said) == 1
    assert "cannot be reached" in said[0] and "trying again" in said[0]
    with pytest.raises(StorageError):
        transactions.again(lambda: engine.connect())


def test_what_a_driver_says_while_a_server_is_away_is_shown_without_the_password() -> None:
    url = sa.make_url("postgresql+psycopg://me:geheim@/test?host=/nowhere/geheim")
    said: list[str] = []
    with pytest.raises(StorageError, match=r"socket \"/nowhere/\*\*\*/") as refusal:
        Transactions(url, say=said.append, patience=1.5).again(sa.create_engine(url).connect)
    assert "cannot be reached" in said[0]
    assert "geheim" not in f"{said} {refusal.value}".replace("host=%2Fnowhere%2Fgeheim", "")


def test_another_writer_on_sqlite_is_contention_and_a_full_disk_is_not(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/studies.db", connect_args={"timeout": 0})
    with engine.begin() as one, engine.connect() as other:
        one.execute(sa.text("create table t (x)"))
        one.execute(sa.text("insert into t values (1)"))
        with pytest.raises(sa.exc.OperationalError) as locked:
            other.execute(sa.text("create table u (x)"))
    assert passing(locked.value) == "contention"
    with engine.connect() as connection:
        connection.execute(sa.text("pragma max_page_count = 2"))
        with pytest.raises(sa.exc.OperationalError) as full:
            connection.execute(sa.text("create table v as select randomblob(100000) as x"))
    assert "full" in str(full.value)
    assert passing(full.value) is None
    engine.dispose()


def test_a_lock_that_a_server_waits_for_in_vain_is_contention(server_storage: str) -> None:
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database))
    mysql = sa.make_url(server_storage).get_backend_name() == "mysql"
    with database.db.connect() as one, database.db.connect() as other:
        one.execute(sa.text("update studies set study_name = 'held'"))
        other.execute(sa.text("set innodb_lock_wait_timeout = 1" if mysql else "set lock_timeout = '1s'"))
        with pytest.raises(sa.exc.OperationalError) as waited:
            other.execute(sa.text("update studies set study_name = 'wanted'"))
        one.rollback()
    assert passing(waited.value) == "contention"
    assert reason(waited.value, database.db.url)[0] not in "('"
    assert ledger.study.study_name == "mnist"
    database.db.dispose()


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was stopped: its kernel goes on accepting connections."""
    monkeypatch.setattr("batchopt.store.connecting.CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr("batchopt.store.database.CHECK_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for driver in ("postgresql+psycopg", "mysql+pymysql"):
            for look in (lambda url: check_storage(url, create=True), examine):
                started = time.monotonic()
                with pytest.raises(StorageError, match="time"):
                    look(f"{driver}://user@127.0.0.1:{port}/studies")
                assert time.monotonic() - started < 15


def test_a_server_that_falls_silent_in_the_middle_is_given_up(tmp_path: Path) -> None:
    """Stopped with its connections open: TCP's own questions are answered by its kernel."""
    server = PrivatePostgres(tmp_path)
    server.start()
    engine = engine_to(sa.make_url(server.url), silence=1.5, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            pid = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(sa.exc.OperationalError, match=r"the server has not answered for 1\.5 s") as silence:
                connection.execute(sa.text("select 1"))
            os.kill(pid, signal.SIGCONT)
        assert passing(silence.value) == "connection"
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_program_that_is_gone_in_the_middle_of_a_transaction_keeps_nothing_locked(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a machine loses its network: for its server it is merely silent. It comes back, and begins again."""
    monkeypatch.setattr(connecting, "ABANDONED", {name: said.replace("30", "1") for name, said in ABANDONED.items()})
    with own_database(kind) as storage:
        database = open_database(storage, create=True)
        new_study(database)
        heir = engine_to(sa.make_url(storage), poolclass=sa.NullPool)
        row = sa.select(optunas_studies.c.study_id).with_for_update()
        with database.db.connect() as gone, heir.connect() as connection:
            gone.execute(row)
            connection.execute(row)
            with pytest.raises(sa.exc.DBAPIError) as late:
                gone.execute(row)
        assert passing(late.value) == "connection"
        with database.db.connect() as again:
            again.execute(row)
        database.db.dispose()
        heir.dispose()


def test_a_database_that_is_dropped_is_not_waited_for(any_server: tuple[str, str]) -> None:
    kind, storage = any_server
    database = open_database(storage, create=True)
    ledger = Ledger(database, new_study(database))
    number = begin(ledger, 64)
    engine = sa.create_engine(sa.make_url(storage).set(database="test"), isolation_level="AUTOCOMMIT")
    name = sa.make_url(storage).database
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name}{' WITH (FORCE)' if kind == 'postgresql' else ''}"))
        with pytest.raises(StorageFailed, match=r"It was removed while it was in use: restore a copy") as gone:
            ledger.add_epoch(number, MACHINE, epoch(1), 0.0)
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    assert "\n" not in str(gone.value)
    database.db.dispose()
    engine.dispose()


@pytest.fixture(params=["postgresql", "mysql"])
def any_server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    with own_database(request.param) as url:
        yield request.param, url


def test_a_study_that_is_deleted_meanwhile_is_said_in_a_line(any_storage: str) -> None:
    """One click in optuna-dashboard; another study that has its ids by then is not written to."""
    database = open_database(any_storage, create=True)
    ledger = Ledger(database, found_or_made(database, "mnist"))
    ledger.study.enqueue_trial({"batch_size": 64, "learning_rate": 0.01})
    number = ledger.study.ask(SPACE.distributions()).number
    assert ledger.begin(number)
    other = open_database(any_storage, create=False)
    optuna.delete_study(study_name="mnist", storage=other.storage)
    with pytest.raises(StorageFailed, match=r"study 'mnist' was deleted from database .*the same command begins it"):
        ledger.elapsed()
    heir = optuna.create_study(study_name="other", storage=other.storage)
    heir.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    with pytest.raises(StorageFailed, match="study 'mnist' was deleted"):
        ledger.add_epoch(number, MACHINE, epoch(1), 0.0)
    assert heir.trials[0].intermediate_values == {}
    for each in (database, other):
        each.db.dispose()


def test_a_trial_that_is_deleted_meanwhile_keeps_its_place_as_a_failed_one(any_storage: str) -> None:
    """By a statement of somebody's own, which leaves its other rows behind; those after it are as they would be."""
    database = open_database(any_storage, create=True)
    ledger = Ledger(database, new_study(database))
    numbers = [begin(ledger, 64), begin(ledger, 16)]
    ledger.add_epoch(1, MACHINE, epoch(1), 0.0, checkpoint=b"state")
    kept = {"postgresql": "SET session_replication_role = replica", "mysql": "SET FOREIGN_KEY_CHECKS = 0"}
    with database.db.begin() as connection:
        if statement := kept.get(sa.make_url(any_storage).get_backend_name()):
            connection.execute(sa.text(statement))
        connection.execute(sa.text("DELETE FROM trials WHERE number = 1"))
    database.db.dispose()
    with pytest.raises(Deleted, match="trial 1 was deleted by another program"):
        ledger.add_epoch(1, MACHINE, epoch(2), 0.0)
    assert ledger.owned() == numbers[:1]
    assert begin(ledger, 256) == 2
    states = [trial.state.name for trial in optuna.load_study(study_name="mnist", storage=database.storage).trials]
    assert states == ["RUNNING", "FAIL", "RUNNING"]
    ledger.release()
    assert examine(any_storage).findings == []
    database.db.dispose()


def test_a_turn_grows_with_what_is_decided_in_it(tmp_path: Path) -> None:
    """One that is too short would be lost to the next process at each decision, and that one's to this."""
    database = open_database(str(tmp_path / "studies.db"), create=True)
    study = found_or_made(database, "mnist")
    slow, other = (Ledger(database, study, lease_seconds=0.9) for _ in range(2))
    lost = []
    for _ in range(2):
        try:
            with slow.turn():
                time.sleep(0.5)
                with other.turn(0.1) as mine:
                    assert mine is (not lost)
                slow.study.ask(SPACE.distributions())
        except TurnLost:
            lost.append(1)
    assert lost == [1]
    assert len(study.trials) == 1
    database.db.dispose()


def test_a_lock_that_another_program_holds_is_waited_for_and_said(tmp_path: Path) -> None:
    storage = str(tmp_path / "studies.db")
    database = open_database(storage, create=True)
    said: list[str] = []
    ledger = Ledger(database, new_study(database), transactions=Transactions(database.db.url, say=said.append))
    other = sqlite3.connect(storage, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(7.0, lambda: other.execute("ROLLBACK")).start()
    ledger.set_elapsed(1.0)
    assert said[0] == f"database {database.url} is locked by another program; trying again"
    assert said[1].startswith(f"database {database.url} is back after")
    assert ledger.elapsed() == 1.0
    other.close()
    database.db.dispose()
