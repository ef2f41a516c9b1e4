"""A database may be anybody's: whatever stands in it, no other file is opened, sent or removed, and nothing is run."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from batchopt.errors import InvalidInput
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine, repair
from batchopt.store.folders import file_system
from batchopt.store.ledger import Ledger
from batchopt.store.transfer.transfer import export, merge

NAME = "0123456789abcdef" * 2 + ".npz"
SECRET = b"a thesis, and the only copy of it"


@pytest.fixture
def storage(written: Path, tmp_path: Path) -> str:
    (tmp_path / "thesis.tex").write_bytes(SECRET)
    (tmp_path / "studies.db-checkpoints").mkdir()
    return str(shutil.copy(written, tmp_path / "studies.db"))


@pytest.fixture
def called() -> Iterator[tuple[int, list[object]]]:
    """A port, and who called it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls: list[object] = []

        def wait() -> None:
            while True:
                try:
                    calls.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=wait, daemon=True).start()
        yield listener.getsockname()[1], calls
        listener.shutdown(socket.SHUT_RDWR)


def name_file(storage: str, location: str, *, trial_id: int = 6, sha256: str | None = None) -> None:
    """Have a checkpoint's row name a file; trial 6 is the unfinished one."""
    digest = sha256 or hashlib.sha256(SECRET).hexdigest()
    with closing(sqlite3.connect(storage)) as connection, connection:
        connection.execute(
            "insert or replace into batchopt_checkpoints (trial_id, epoch, sha256, content, location) "
            "values (?, 1, ?, x'', ?)",
            (trial_id, digest, location),
        )


def do_all(storage: str, folder: Path) -> None:
    """Whatever reads checkpoints: a session that takes the trial up and ends it comes last."""
    assert examine(storage).findings
    export(storage, str(folder / "exported.db"))
    merge([storage], str(folder / "merged.db"))
    database = open_database(storage, create=True)
    ledger = Ledger(database, optuna.load_study(study_name="mnist", storage=database.storage))
    assert ledger.begin(5)
    with pytest.raises(Exception, match=r"not opened|cannot be read|not a file|it lies in"):
        ledger.checkpoint(5)
    ledger.prune(5)
    database.db.dispose()
    repair(storage)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.db*") if path.is_file())


def test_no_file_is_opened_sent_or_removed_because_a_database_names_it(
    storage: str, tmp_path: Path, called: tuple[int, list[object]]
) -> None:
    port, calls = called
    (tmp_path / NAME).write_bytes(SECRET)
    locations = (
        str(tmp_path / "thesis.tex"),
        "../thesis.tex",
        f"file://{tmp_path}/{NAME}",
        f"http://127.0.0.1:{port}/{NAME}",
        "/dev/zero",
        # Of the unfinished trial.
        f"{tmp_path}/{NAME}",
        f"../{NAME}",
        f"simplecache::http://127.0.0.1:{port}/{NAME}",
    )
    for trial_id, location in enumerate(locations, start=1):
        # The last ones are of trials that are not there; the doctor tidies up after them, too.
        name_file(storage, location, trial_id=trial_id)
    do_all(storage, tmp_path)
    assert (tmp_path / "thesis.tex").read_bytes() == (tmp_path / NAME).read_bytes() == SECRET
    assert SECRET not in everything_in(tmp_path)
    assert calls == []


def test_what_has_the_name_of_a_checkpoint_and_is_no_file_is_neither_followed_nor_waited_for(
    storage: str, tmp_path: Path
) -> None:
    folder = tmp_path / "studies.db-checkpoints"
    link, pipe, inner = (f"{letter}{NAME[1:]}" for letter in "abc")
    (folder / link).symlink_to(tmp_path / "thesis.tex")
    os.mkfifo(folder / pipe)
    (folder / inner).mkdir()
    for trial_id, name in ((6, link), (1, pipe), (2, inner)):
        name_file(storage, name, trial_id=trial_id)
    do_all(storage, tmp_path)
    held = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    assert not [file for file in held if file.startswith(str(tmp_path))]
    assert (tmp_path / "thesis.tex").read_bytes() == SECRET
    assert SECRET not in everything_in(tmp_path)


def test_a_folder_beside_a_database_that_leads_elsewhere_is_not_used(storage: str, tmp_path: Path) -> None:
    """As `--checkpoints` it may be a link: then it is the user's own word."""
    elsewhere = tmp_path / "another study's"
    elsewhere.mkdir()
    (elsewhere / NAME).write_bytes(SECRET)
    (elsewhere / "data.npz").write_bytes(SECRET)
    (tmp_path / "studies.db-checkpoints").rmdir()
    (tmp_path / "studies.db-checkpoints").symlink_to(elsewhere)
    name_file(storage, NAME)
    do_all(storage, tmp_path)
    assert SECRET not in everything_in(tmp_path)
    assert sorted(path.name for path in elsewhere.iterdir()) == [NAME, "data.npz"]


def test_only_files_of_ours_are_tidied_up(storage: str, tmp_path: Path) -> None:
    folder = tmp_path / "studies.db-checkpoints"
    for name in (NAME, "data.npz", f"x{NAME}", "weights.keras"):
        (folder / name).write_bytes(SECRET)
    assert [finding.kind for finding in examine(storage).findings] == ["unnamed files"]
    assert repair(storage).findings == []
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "weights.keras", f"x{NAME}"]


def test_a_file_in_the_folder_that_was_given_is_moved_and_without_it_that_is_said(storage: str, tmp_path: Path) -> None:
    given = tmp_path / "states"
    given.mkdir()
    (given / NAME).write_bytes(SECRET)
    name_file(storage, f"{given}/{NAME}")
    (finding,) = examine(storage).findings
    assert finding.kind == "checkpoint elsewhere" and finding.repair is None
    assert f"it lies in {given}; give that folder with --checkpoints" in finding.what
    assert repair(storage).backup == ""
    done = export(storage, str(tmp_path / "without.db"))
    assert (done.studies[0]["checkpoints"], len(done.studies[0]["left"])) == (0, 1)
    assert examine(storage, str(given)).findings == []
    done = export(storage, str(tmp_path / "with.db"), checkpoints=str(given))
    assert (done.studies[0]["checkpoints"], done.studies[0]["left"]) == (1, [])
    assert SECRET in (tmp_path / "with.db").read_bytes()


def test_a_file_that_no_memory_holds_is_not_read(storage: str, tmp_path: Path) -> None:
    with (tmp_path / "studies.db-checkpoints" / NAME).open("wb") as file:
        file.truncate(1 << 43)
    name_file(storage, NAME)
    (finding,) = examine(storage).findings
    assert "its 8388608 MiB are more than this machine has memory for" in finding.what


def test_a_secret_of_the_checkpoints_url_is_neither_said_nor_kept(storage: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refusal:
        file_system("nosuch://key:geheim@bucket/states")
    assert "geheim" not in str(refusal.value) and "nosuch://key:***@bucket" in str(refusal.value)
    database = open_database(storage, create=True)
    study = optuna.load_study(study_name="mnist", storage=database.storage)
    ledger = Ledger(database, study, checkpoint_limit=1, checkpoints="memory://key:geheim@batchopt/states")
    assert ledger.begin(5)
    ledger.add_checkpoint(5, 1, SECRET)
    assert ledger.checkpoint(5) == (1, SECRET)
    database.db.dispose()
    assert b"geheim" not in everything_in(tmp_path)
