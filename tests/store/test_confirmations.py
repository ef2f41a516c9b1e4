"""Runs that confirm, in real databases: kept once, carried by export and merge, seen by the doctor, nobody else's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from batchopt.store.confirmations import ConfirmationRun, Confirmations, Role, plan_of
from batchopt.store.database import Database, open_database
from batchopt.store.doctor.doctor import examine, repair
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from batchopt.store.tables import confirmations_table
from batchopt.store.transfer.transfer import export, merge
from written_study import MACHINE, STAMP

PARAMS = {"batch_size": 64, "learning_rate": 0.01, "units": 3}
RUN = ConfirmationRun(
    plan=plan_of(PARAMS),
    role="recommended",
    run=0,
    trials=6,
    machine=MACHINE.fingerprint,
    batch_size=64,
    learning_rate=0.01,
    extra={"units": 3},
    seed=2**31 + 5,
    epochs=2,
    train_seconds=2.5,
    validation_value=0.9375,
    test_loss=0.25,
    test_value=0.875,
)


def run(role: Role, number: int, **changes: float) -> ConfirmationRun:
    return dataclasses.replace(RUN, role=role, run=number, **changes)


def confirmed(storage: Path, *runs: ConfirmationRun) -> list[ConfirmationRun]:
    """Keep runs in the study of a file; returns all that it has."""
    database = open_database(str(storage), create=False)
    kept = Confirmations(database.db, optuna.load_study(study_name="mnist", storage=database.storage)._study_id)
    for each in runs:
        kept.add(each)
    found = kept.all()
    database.db.dispose()
    return found


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path / "a.db"))


def test_what_is_kept_is_read_as_it_was_in_every_database(any_storage: str) -> None:
    database = open_database(any_storage, create=True)
    kept, others = Confirmations(database.db, 1), Confirmations(database.db, 2)
    diverged = run("reference", 0, test_value=float("nan"), test_loss=float("inf"))
    kept.add(diverged)
    kept.add(RUN)
    others.add(run("fastest", 0))
    assert kept.all() == [RUN, dataclasses.replace(diverged, test_value=None, test_loss=None)]
    kept.add(run("recommended", 0, test_value=0.5))
    assert kept.all()[0] == RUN, "the run of whoever was faster stays"
    kept.forget()
    assert (kept.all(), others.all()) == ([], [run("fastest", 0)])
    database.db.dispose()


@pytest.mark.parametrize("study", [None, "mnist"], ids=["file", "rows"])
def test_they_travel_with_their_study(source: Path, tmp_path: Path, study: str | None) -> None:
    expected = confirmed(source, RUN, run("reference", 0))
    export(str(source), str(tmp_path / "b.db"), study)
    assert confirmed(tmp_path / "b.db") == expected


def test_those_of_two_copies_are_joined_and_none_is_there_twice(source: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(source, tmp_path / "b.db"))
    confirmed(source, RUN)
    confirmed(other, run("recommended", 0, test_value=0.5), run("recommended", 1))
    for _ in range(2):
        merge([str(source), str(other)], str(tmp_path / "c.db"))
        assert confirmed(tmp_path / "c.db") == [RUN, run("recommended", 1)]


def test_the_doctor_finds_those_of_a_study_that_is_no_more(source: Path) -> None:
    confirmed(source, RUN)
    assert examine(str(source)).findings == []
    optuna.delete_study(study_name="mnist", storage=f"sqlite:///{source}")
    assert "orphaned confirmations" in [finding.kind for finding in examine(str(source)).findings]
    assert repair(str(source)).findings == []
    engine = sa.create_engine(f"sqlite:///{source}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.execute(sa.select(confirmations_table)).all() == []


def test_a_new_study_has_none_of_one_that_another_program_has_deleted(database: Database) -> None:
    """SQLite gives it the same id."""
    ledger = Ledger(database, found_or_made(database, "first"))
    stamp_if_unmade(ledger, STAMP)
    ledger.confirmations.add(RUN)
    optuna.delete_study(study_name="first", storage=database.storage)
    after = Ledger(database, found_or_made(database, "second"))
    assert after.study._study_id == ledger.study._study_id
    stamp_if_unmade(after, STAMP)
    assert after.confirmations.all() == []
