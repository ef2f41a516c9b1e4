"""States of trials, small ones in the database and large ones beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import fsspec
import optuna
import pytest
import sqlalchemy as sa
from batchopt.errors import InvalidInput, StorageError
from batchopt.store.checkpoints import Checkpoints
from batchopt.store.database import Database, open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.folders import file_system
from batchopt.store.leases import LeaseLost
from batchopt.store.ledger import Ledger
from batchopt.store.records import DamagedCheckpoint
from batchopt.store.tables import checkpoints_table, leases_table
from batchopt.store.transactions import Transactions
from fsspec.implementations.memory import MemoryFileSystem
from servers import SERVERS, own_database
from written_study import MACHINE, begin, epoch, new_study

SMALL, LARGE = b"weights", bytes(range(256)) * 100


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """Keeps what is above a kilobyte in files."""
    ledger = Ledger(database, new_study(database), checkpoint_limit=1000)
    begin(ledger, 64)
    return ledger


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-checkpoints/*"))


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_checkpoint_comes_back_byte_for_byte(ledger: Ledger, tmp_path: Path, content: bytes) -> None:
    ledger.add_checkpoint(0, 3, content)
    assert ledger.checkpoint(0) == (3, content)
    assert len(files(tmp_path)) == (content == LARGE)


def test_only_the_latest_checkpoint_of_a_trial_is_kept(database: Database, ledger: Ledger, tmp_path: Path) -> None:
    for at, content in enumerate((LARGE, LARGE[:-1], SMALL, LARGE), start=1):
        ledger.add_checkpoint(0, at, content)
        assert ledger.checkpoint(0) == (at, content)
        assert len(files(tmp_path)) == (len(content) > 1000)
    with database.db.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(checkpoints_table)).scalar() == 1


def test_a_trial_that_ends_takes_its_file_with_it_whoever_wrote_it(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.add_checkpoint(0, 1, LARGE)
    ledger.release()
    heir = Ledger(database, ledger.study)
    assert heir.begin(0)
    heir.prune(0)
    assert files(tmp_path) == []


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_flipped_byte_is_recognised(database: Database, ledger: Ledger, tmp_path: Path, content: bytes) -> None:
    ledger.add_checkpoint(0, 1, content)
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for path in files(tmp_path):
        path.write_bytes(flipped)
    if not files(tmp_path):
        with database.db.begin() as connection:
            connection.execute(checkpoints_table.update().values(content=flipped))
    with pytest.raises(DamagedCheckpoint, match="SHA-256"):
        ledger.checkpoint(0)


def test_a_file_that_is_gone_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add_checkpoint(0, 1, LARGE)
    (path,) = files(tmp_path)
    path.unlink()
    with pytest.raises(DamagedCheckpoint, match=f"{path.name} cannot be read"):
        ledger.checkpoint(0)


def test_a_file_is_found_from_any_folder_and_where_its_database_was_moved_to(
    database: Database, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened by a relative path, read from elsewhere; then both moved, and renamed."""
    monkeypatch.chdir(tmp_path)
    relative = open_database("studies.db", create=False)
    ledger.release()
    writer = Ledger(relative, ledger.study, checkpoint_limit=1000)
    assert writer.begin(0)
    writer.add_checkpoint(0, 1, LARGE)
    writer.release()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert ledger.begin(0)
    assert ledger.checkpoint(0) == (1, LARGE)
    ledger.release()
    relative.db.dispose()
    database.db.dispose()
    for path in tmp_path.glob("studies.db*"):
        path.rename(elsewhere / path.name.replace("studies", "moved"))
    moved = open_database("moved.db", create=False)
    heir = Ledger(moved, optuna.load_study(study_name="mnist", storage=moved.storage))
    assert heir.begin(0)
    assert heir.checkpoint(0) == (1, LARGE)
    moved.db.dispose()


@pytest.mark.parametrize("moved", [False, True], ids=["there", "moved"])
def test_a_file_that_an_earlier_version_named_with_its_folder_is_found(
    database: Database, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    ledger.add_checkpoint(0, 1, LARGE)
    (path,) = files(tmp_path)
    named = f"old.db-checkpoints/{path.name}" if moved else f"studies.db-checkpoints/{path.name}"
    with database.db.begin() as connection:
        connection.execute(checkpoints_table.update().values(location=named))
    monkeypatch.chdir(tmp_path)
    assert ledger.checkpoint(0) == (1, LARGE)
    ledger.complete(0, 0.5)
    assert files(tmp_path) == []


def test_a_folder_that_was_given_by_a_relative_path_is_found_from_elsewhere_where_it_is_given_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(database, new_study(database), checkpoint_limit=10, checkpoints="states")
    begin(ledger, 64)
    ledger.add_checkpoint(0, 1, LARGE)
    monkeypatch.chdir("/")
    again = Ledger(database, ledger.study, checkpoints=str(tmp_path / "states"))
    assert again._checkpoints.get(1) == (1, LARGE)
    with pytest.raises(DamagedCheckpoint, match=f"it lies in {tmp_path}/states; give that folder with --checkpoints"):
        Ledger(database, ledger.study)._checkpoints.get(1)


def test_late_results_leave_no_file_and_take_none_from_the_heir(
    database: Database, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.add_epoch(0, MACHINE, epoch(1), 0.0, checkpoint=LARGE)
    with database.db.begin() as connection:
        connection.execute(leases_table.update().values(owner="another"))
    with pytest.raises(LeaseLost):
        ledger.add_epoch(0, MACHINE, epoch(2), 0.0, checkpoint=LARGE[:-1])
    (path,) = files(tmp_path)
    assert path.read_bytes() == LARGE


def test_a_study_whose_states_a_server_does_not_take_is_refused_before_it_is_made() -> None:
    """MariaDB takes 16 MB in one statement where nobody has changed that, PostgreSQL a GB in one value."""
    for kind in SERVERS:
        with own_database(kind) as server:
            database = open_database(server, create=True)
            with database.db.connect() as connection:
                largest = connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar() if kind == "mysql" else 0
            size = int(largest or 1 << 30)
            Checkpoints(database.db, limit=2 * size, folder=None).check(size // 3)
            with pytest.raises(StorageError, match=r"more than this server takes.*--checkpoints") as refusal:
                Checkpoints(database.db, limit=2 * size, folder=None).check(size // 2)
            assert "\n" not in str(refusal.value)
            database.db.dispose()


def test_what_a_server_does_not_take_goes_to_a_file_though_it_is_under_the_limit(tmp_path: Path) -> None:
    with own_database("mysql") as server:
        database = open_database(server, create=True)
        with database.db.connect() as connection:
            packet = int(connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one())
        ledger = Ledger(database, new_study(database), checkpoint_limit=packet, checkpoints=str(tmp_path / "states"))
        begin(ledger, 64)
        content = bytes(packet // 2)
        ledger.add_checkpoint(0, 1, content)
        assert len(list((tmp_path / "states").iterdir())) == 1
        assert ledger.checkpoint(0) == (1, content)
        database.db.dispose()


def test_files_may_lie_where_fsspec_reaches(database: Database) -> None:
    ledger = Ledger(database, new_study(database), checkpoint_limit=10, checkpoints="memory://batchopt/states")
    begin(ledger, 64)
    ledger.add_checkpoint(0, 1, LARGE)
    memory, path = file_system("memory://batchopt/states")
    assert len(memory.ls(path, detail=False)) == 1
    assert ledger.checkpoint(0) == (1, LARGE)
    ledger.complete(0, 0.5)
    assert memory.ls(path, detail=False) == []


def test_a_url_that_nobody_knows_is_refused_before_anything_is_written() -> None:
    with pytest.raises(InvalidInput, match=r"--checkpoints nosuch://bucket: .*nosuch"):
        file_system("nosuch://bucket")


def test_a_folder_that_cannot_be_made_is_said_in_one_line(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(database, new_study(database), checkpoint_limit=10, checkpoints=str(tmp_path / "file"))
    begin(ledger, 64)
    with pytest.raises(StorageError, match=r"cannot be written: .* choose another --checkpoints"):
        ledger.add_checkpoint(0, 1, LARGE)


def test_servers_keep_what_they_take(server_storage: str) -> None:
    """1.2 MB, the reference model, and more than the limit where there is no folder to put it in."""
    database = open_database(server_storage, create=True)
    ledger = Ledger(database, new_study(database))
    begin(ledger, 64)
    content = LARGE * 47
    ledger.add_checkpoint(0, 1, content)
    assert ledger.checkpoint(0) == (1, content)
    few = Ledger(database, ledger.study, checkpoint_limit=1000)
    ledger.release()
    assert few.begin(0)
    few.add_checkpoint(0, 2, LARGE)
    assert few.checkpoint(0) == (2, LARGE)
    database.db.dispose()


class Flaky(MemoryFileSystem):
    """A store that fails now and then, in its package's own words."""

    protocol = "flaky"
    failures: ClassVar[list[str]] = []

    def _maybe_fail(self) -> None:
        if self.failures:
            raise RuntimeError(self.failures.pop())

    def pipe_file(self, *arguments: Any, **options: Any) -> Any:
        self._maybe_fail()
        return super().pipe_file(*arguments, **options)

    def cat_file(self, *arguments: Any, **options: Any) -> Any:
        self._maybe_fail()
        return super().cat_file(*arguments, **options)


def test_a_store_that_is_away_for_a_moment_is_waited_for_as_a_database_is(database: Database) -> None:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    said: list[str] = []
    transactions = Transactions(database.db.url, say=said.append)
    ledger = Ledger(
        database, new_study(database), checkpoint_limit=1, checkpoints="flaky://bucket", transactions=transactions
    )
    number = begin(ledger, 64)
    Flaky.failures += ["503 Slow Down"] * 2
    ledger.add_checkpoint(number, 1, b"state")
    assert Flaky.failures == []
    Flaky.failures += ["503 Slow Down"] * 5
    assert ledger.checkpoint(number) == (1, b"state")
    assert "503 Slow Down" in said[0]


def test_a_checkpoint_in_a_store_that_is_away_may_be_whole_and_no_doctor_removes_it(
    database: Database, tmp_path: Path
) -> None:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    ledger = Ledger(database, new_study(database), checkpoint_limit=1, checkpoints="flaky://bucket")
    number, storage = begin(ledger, 64), str(tmp_path / "studies.db")
    ledger.add_checkpoint(number, 1, b"state")
    Flaky.failures += ["503 Slow Down"]
    (finding,) = examine(storage, "flaky://bucket").findings
    assert (finding.kind, finding.repair) == ("checkpoint elsewhere", None)
    assert "503 Slow Down" in finding.what
    assert examine(storage, "flaky://bucket").findings == []
    assert ledger.checkpoint(number) == (1, b"state")
