"""Machines, epochs, leases and checkpoints in a real database."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from batchopt.question.options import LEASE_SECONDS
from batchopt.store.database import Database
from batchopt.store.owner import is_dead, new_owner, place
from batchopt.store.records import Records
from batchopt.store.tables import database_clock, epochs_table, leases_table
from written_study import MACHINE, epoch

NEW_OWNER = "from batchopt.store.owner import new_owner; print(new_owner(), flush=True); input()"


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database.db)


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[str]]:
    """A process with an owner's name, which is its first line; it waits to be ended."""
    with subprocess.Popen(
        [sys.executable, "-c", NEW_OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def owner_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def pass_time(database: Database, seconds: float) -> None:
    """The leases as they will be after so many seconds."""
    with database.db.begin() as connection:
        connection.execute(leases_table.update().values(expires_at=leases_table.c.expires_at - seconds))


def expiry(database: Database, trial_id: int) -> float:
    """Seconds until a lease expires, by the database's clock."""
    query = sa.select(leases_table.c.expires_at - database_clock()).where(leases_table.c.trial_id == trial_id)
    with database.db.connect() as connection:
        return float(connection.execute(query).scalar_one())


def test_the_databases_clock_counts_seconds_since_1970(database: Database) -> None:
    with database.db.connect() as connection:
        assert connection.execute(sa.select(database_clock())).scalar() == pytest.approx(time.time(), abs=5)


def test_a_machine_is_kept_once_under_its_fingerprint(records: Records) -> None:
    records.add_machine(MACHINE)
    records.add_machine(MACHINE)
    assert records.machines() == {MACHINE.fingerprint: MACHINE.describe()}


def test_epochs_come_back_by_trial_and_in_order(records: Records) -> None:
    for trial_id, number in [(7, 2), (8, 1), (7, 1)]:
        records.add_epoch(trial_id, "m", epoch(number, 0.5 + trial_id / 100), compile_seconds=0.25)
    found = records.epochs([7, 8, 9])
    assert {trial_id: [row["epoch"] for row in rows] for trial_id, rows in found.items()} == {7: [1, 2], 8: [1], 9: []}
    assert found[8] == [
        {
            "trial_id": 8,
            "epoch": 1,
            "machine": "m",
            "train_loss": 0.5,
            "train_value": 0.8,
            "validation_loss": 0.25,
            "value": 0.58,
            "train_seconds": 2.0,
            "evaluation_seconds": 0.125,
            "compile_seconds": 0.25,
            "steps": 63,
            "examples_per_second": 500.0,
            "peak_bytes": None,
            "joules": None,
            "side_by_side": False,
            "noise_small": None,
            "noise_big": None,
            "sq_norm_small": None,
            "sq_norm_big": None,
            "noise_seconds": None,
            "raw_loss": None,
            "raw_value": None,
        }
    ]


def test_an_epoch_that_is_trained_again_takes_the_place_of_the_first(records: Records) -> None:
    records.add_epoch(1, "first", epoch(1, 0.5), compile_seconds=1.0)
    records.add_epoch(1, "second", epoch(1, 0.75), compile_seconds=0.0)
    (row,) = records.epochs([1])[1]
    assert (row["machine"], row["value"], row["compile_seconds"]) == ("second", 0.75, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_kept_as_null(database: Database, records: Records, value: float) -> None:
    records.add_epoch(1, "m", epoch(1, train_loss=value, validation_loss=value), compile_seconds=0.0)
    (row,) = records.epochs([1])[1]
    assert (row["train_loss"], row["validation_loss"], row["train_value"]) == (None, None, 0.8)
    with database.db.connect() as connection:
        query = sa.select(sa.func.count()).where(epochs_table.c.train_loss.is_(None))
        assert connection.execute(query).scalar() == 1


def test_more_trials_than_a_statement_may_name_are_read(records: Records) -> None:
    records.add_epoch(1, "m", epoch(1), compile_seconds=0.0)
    records.add_epoch(1999, "m", epoch(1), compile_seconds=0.0)
    found = records.epochs(range(2000))
    assert len(found) == 2000
    assert [trial_id for trial_id, rows in found.items() if rows] == [1, 1999]


def test_a_trial_is_taken_by_one_owner_only(records: Records) -> None:
    assert records.take_lease(1, "one")
    assert not records.take_lease(1, "other")
    assert records.leased() == {1: "one"}


def test_an_owner_may_take_its_own_trial_again(records: Records) -> None:
    assert records.take_lease(1, "one")
    assert records.take_lease(1, "one")


def test_of_many_who_want_the_same_trials_each_trial_gets_one(database: Database, records: Records) -> None:
    """Four at once, each with every trial in its own order."""
    trials = range(12)

    def take(owner: int) -> list[int]:
        order = [(trial + 3 * owner) % len(trials) for trial in trials]
        return [trial for trial in order if Records(database.db).take_lease(trial, f"owner {owner}")]

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, range(4)))
    assert sorted(trial for mine in taken for trial in mine) == list(trials)
    assert records.leased() == {trial: f"owner {owner}" for owner, mine in enumerate(taken) for trial in mine}


def test_a_lease_lasts_its_seconds_by_the_databases_clock(database: Database, records: Records) -> None:
    records.take_lease(1, "one")
    assert LEASE_SECONDS - 5 < expiry(database, 1) <= LEASE_SECONDS


def test_an_expired_lease_is_taken_over_and_not_before(database: Database, records: Records) -> None:
    records.take_lease(1, "one")
    pass_time(database, LEASE_SECONDS / 2)
    assert not records.take_lease(1, "other")
    pass_time(database, LEASE_SECONDS / 2)
    assert records.leased() == {}
    assert records.take_lease(1, "other")
    assert not records.take_lease(1, "one")


def test_an_owner_renews_its_own_leases_and_no_others(database: Database, records: Records) -> None:
    records.take_lease(1, "one")
    records.take_lease(2, "other")
    pass_time(database, LEASE_SECONDS / 2)
    assert records.renew_leases([1, 2], "one") == [2]
    assert expiry(database, 1) > LEASE_SECONDS - 5
    assert expiry(database, 2) < LEASE_SECONDS / 2 + 1


def test_a_lease_that_was_taken_over_is_not_renewed(database: Database, records: Records) -> None:
    records.take_lease(1, "one")
    pass_time(database, LEASE_SECONDS + 1)
    records.take_lease(1, "other")
    records.renew_leases([1], "one")
    assert records.leased() == {1: "other"}


def test_a_released_trial_is_anyones(records: Records) -> None:
    records.take_lease(1, "one")
    records.release_lease(1, "other")
    assert records.leased() == {1: "one"}
    records.release_lease(1, "one")
    assert records.take_lease(1, "other")


def test_an_owners_name_is_new_each_time_and_says_where_it_lives() -> None:
    one, other = new_owner(), new_owner()
    assert one != other
    assert one.startswith(f"{place()}:{os.getpid()}:")
    assert len(one) <= leases_table.c.owner.type.length


def test_the_trials_of_a_process_that_died_here_are_free_at_once(
    records: Records, other_process: subprocess.Popen[str]
) -> None:
    owner = owner_of(other_process)
    records.take_lease(1, owner)
    records.take_lease(2, new_owner())
    records.forget_dead_owners()
    assert set(records.leased()) == {1, 2}
    other_process.kill()
    other_process.wait()
    assert is_dead(owner)
    records.forget_dead_owners()
    assert set(records.leased()) == {2}


def test_a_process_that_was_killed_and_not_yet_reaped_is_dead(other_process: subprocess.Popen[str]) -> None:
    """In a container without an init, nobody reaps it."""
    owner = owner_of(other_process)
    other_process.kill()
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(owner)


def test_the_death_of_a_process_elsewhere_cannot_be_seen_from_here(
    records: Records, other_process: subprocess.Popen[str]
) -> None:
    elsewhere = owner_of(other_process).replace(place(), "another-machine")
    other_process.kill()
    other_process.wait()
    records.take_lease(1, elsewhere)
    records.forget_dead_owners()
    assert records.leased() == {1: elsewhere}
