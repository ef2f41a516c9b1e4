"""A database that fails under a session, by kind: one line; what was finished is there, the doctor is clean, the next
session ends what was begun.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from batchopt.errors import BatchoptError
from batchopt.question.options import Budget, Options
from batchopt.report.answer.reading import read_study
from batchopt.search.steps import Step
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine
from batchopt.study.session import Session
from sessions import EPOCHS, QUESTION, accuracy
from written_study import MACHINE, epoch

STATE = os.urandom(400_000)


def opened(storage: Path, limit: int) -> Session:
    """A session of one trial; states above so many bytes go to files."""
    options, budget = Options(checkpoint_limit=limit, prune=False), Budget(trials=1, until_known=False)
    return Session.open("mnist", str(storage), QUESTION, options=options, budget=budget)


def trained(session: Session, epochs: int) -> Step:
    """Train the next trial, or the one that was left, up to an epoch."""
    step = session.ask()
    assert step is not None
    begun, state = session.state(step)
    assert not begun or state == STATE
    for at in range(begun + 1, epochs + 1):
        session.tell(step.trial, MACHINE, epoch(at, accuracy(step, at)), checkpoint=STATE if at < EPOCHS else None)
    return step


def refused_in_a_child(action: Callable[[], None]) -> str:
    """What a process of its own says that an action has failed with."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing was refused"
        try:
            action()
        except BatchoptError as error:
            said = str(error)
        except BaseException as error:  # noqa: BLE001  whatever it is, the child must not go on as its parent
            said = f"Traceback: {error!r}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def assert_whole(storage: Path, epochs: int) -> None:
    """So many epochs are there, nothing is wrong, and a session ends what was begun."""
    (trial,) = read_study(str(storage), "mnist")
    assert len(trial.epochs) == epochs
    # Which a process that could not write any more has left; the next session takes its trial up.
    assert {finding.kind for finding in examine(str(storage)).findings} <= {"abandoned lease"}
    with opened(storage, 64_000_000) as session:
        trained(session, EPOCHS)
    (trial,) = read_study(str(storage), "mnist")
    assert (trial.state, len(trial.epochs)) == ("complete", EPOCHS)
    assert examine(str(storage)).findings == []


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "room"), [(1_000, 300_000), (64_000_000, 700_000)], ids=["file", "database"])
def test_a_disk_that_fills_while_a_checkpoint_is_written_loses_no_finished_epoch(
    limit: int, room: int, tmp_path: Path
) -> None:
    """No file may grow beyond some size from the third epoch on, as on a disk that is full."""
    storage = tmp_path / "studies.db"
    with opened(storage, limit) as session:
        trained(session, 2)

    def fill() -> None:
        with opened(storage, limit) as session:
            step = session.ask()
            assert step is not None and session.state(step)[0] == 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            for at in range(3, EPOCHS):
                session.tell(step.trial, MACHINE, epoch(at, accuracy(step, at)), checkpoint=STATE)

    said = refused_in_a_child(fill)
    assert len(said.splitlines()) == 1 and "Traceback" not in said and "nothing was refused" not in said, said
    assert_whole(storage, len(read_study(str(storage), "mnist")[0].epochs))
    assert not list(tmp_path.glob("studies.db-checkpoints/*"))


@pytest.mark.slow
def test_a_database_that_comes_to_be_read_only_is_said_and_loses_nothing(tmp_path: Path) -> None:
    storage = tmp_path / "studies.db"
    with opened(storage, 64_000_000) as session:
        step = trained(session, 2)

        def only_read(connection: sqlite3.Connection, *rest: object) -> None:
            connection.execute("pragma query_only = 1")

        sa.event.listen(session.ledger.db, "checkout", only_read)
        with pytest.raises(BatchoptError, match="readonly") as refusal:
            session.tell(step.trial, MACHINE, epoch(3, 0.5), checkpoint=STATE)
        assert len(str(refusal.value).splitlines()) == 1
        sa.event.remove(session.ledger.db, "checkout", only_read)
        session.ledger.db.dispose()
    assert_whole(storage, 2)


@pytest.mark.slow
def test_a_database_that_another_program_locks_is_waited_for(tmp_path: Path) -> None:
    storage = tmp_path / "studies.db"
    with opened(storage, 64_000_000) as session:
        step = trained(session, 2)
        with closing(sqlite3.connect(storage, isolation_level=None, check_same_thread=False)) as other:
            other.execute("begin immediate")
            began = time.monotonic()
            release = threading.Timer(0.7, lambda: other.execute("rollback"))
            release.start()
            session.tell(step.trial, MACHINE, epoch(3, accuracy(step, 3)), checkpoint=STATE)
            assert time.monotonic() - began > 0.5
            release.join()
    assert_whole(storage, 3)


def test_a_study_that_is_deleted_in_the_dashboard_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    storage = tmp_path / "studies.db"
    with opened(storage, 1_000) as session:
        step = trained(session, 2)
        other = open_database(str(storage), create=False)
        optuna.delete_study(study_name="mnist", storage=other.storage)
        other.db.dispose()
        with pytest.raises(BatchoptError, match="deleted") as refusal:
            session.tell(step.trial, MACHINE, epoch(3, 0.5), checkpoint=STATE)
        assert len(str(refusal.value).splitlines()) == 1
    with opened(storage, 64_000_000) as session:
        trained(session, EPOCHS)
    (trial,) = read_study(str(storage), "mnist")
    assert (trial.state, len(trial.epochs)) == ("complete", EPOCHS)
