"""What keeps several processes apart, on each kind of database: real servers, real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from servers import cut_connections
from written_study import MACHINE, begin, epoch, new_study

from optimizer.errors import StorageError
from optimizer.store.database import open_database
from optimizer.store.ledger import Ledger
from optimizer.store.sharing import LeaseLost
from optimizer.store.tables import (
    checkpoints_table,
    database_clock,
    epochs_table,
    leases_table,
    schema_table,
    turns_table,
)
from optimizer.store.transactions import Transactions, passing

TESTS = Path(__file__).parents[1]

MAKE_AND_BEGIN = """
import sys, time
from optimizer.store.database import open_database
from optimizer.store.ledger import Ledger
from optimizer.store.making import found_or_made, stamp_if_unmade
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
    counts = [count(database.engine, table) for table in (epochs_table, leases_table, checkpoints_table, turns_table)]
    assert counts == [24, 0, 0, 0]
    assert count(database.engine, schema_table) == 1
    database.engine.dispose()


def test_a_trial_that_was_taken_over_refuses_its_first_owner_on_every_database(any_storage: str) -> None:
    database = open_database(any_storage, create=True)
    first = Ledger(database, new_study(database))
    number = begin(first, 64)
    first.add_epoch(number, MACHINE, epoch(1, 0.5), 0.0, checkpoint=b"one epoch")
    with database.engine.begin() as connection:
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
    database.engine.dispose()


def test_a_connection_that_is_cut_again_and_again_costs_nothing(server_storage: str) -> None:
    """Cut before every write: each is there once at the end, and the study is told of nothing shorter than a second."""
    said: list[str] = []
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database), transactions=Transactions(database.url, say=said.append))
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
    database.engine.dispose()


def test_a_transaction_that_is_cut_in_its_middle_is_done_again_whole(server_storage: str) -> None:
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database))
    number = begin(ledger, 64)
    tried: list[int] = []

    def write() -> None:
        tried.append(1)
        with database.engine.begin() as connection:
            connection.execute(leases_table.update().values(expires_at=leases_table.c.expires_at + 1000))
            if len(tried) < 3:
                cut_connections(server_storage)
            connection.execute(leases_table.update().values(expires_at=leases_table.c.expires_at + 1000))

    ledger.transactions.again(write)
    assert len(tried) == 3
    with database.engine.connect() as connection:
        left = connection.execute(sa.select(leases_table.c.expires_at - database_clock())).scalar_one()
    assert 2000 < left < 2040
    ledger.complete(number, 0.5)
    database.engine.dispose()


def test_what_does_not_pass_is_not_tried_again(any_storage: str) -> None:
    database = open_database(any_storage, create=True)
    tried: list[int] = []

    def wrong() -> None:
        tried.append(1)
        with database.engine.begin() as connection:
            connection.execute(sa.text("select x from nowhere"))

    with pytest.raises(StorageError, match="nowhere"):
        Transactions(database.url).again(wrong)
    assert len(tried) == 1
    database.engine.dispose()


def test_a_server_that_stays_away_is_given_up_in_one_line() -> None:
    """Nothing listens there."""
    engine = sa.create_engine("postgresql+psycopg://postgres@127.0.0.1:1/test")
    said: list[str] = []
    transactions = Transactions("the database", say=said.append, patience=1.5)
    with pytest.raises(StorageError, match=r"the database could not be used for \d s: .*refused.*the same command"):
        transactions.again(lambda: engine.connect())
    assert len(said) == 1
    assert "cannot be reached" in said[0] and "trying again" in said[0]
    with pytest.raises(StorageError):
        transactions.again(lambda: engine.connect())


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
