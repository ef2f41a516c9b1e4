"""A database whose file is removed, moved or replaced while it is in use: said in one line, and nothing is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from batchopt.errors import StorageFailed
from batchopt.report.answer.reading import read_study
from batchopt.store.doctor.doctor import examine
from sessions import Driver


def finished(file: Path) -> int:
    assert examine(str(file)).findings == []
    return sum(trial.state == "complete" for trial in read_study(str(file)))


def begun(folder: Path) -> Driver:
    """A session of four trials, two of which are finished; what they wrote is still in SQLite's log."""
    Driver(f"sqlite:///{folder}/studies.db", 2, search="random").run()
    driver = Driver(f"sqlite:///{folder}/studies.db", 4, search="random")
    driver.session.ledger.set_elapsed(1.0)
    return driver


def test_of_a_database_that_is_removed_what_is_finished_is_saved(tmp_path: Path) -> None:
    driver = begun(tmp_path)
    for file in tmp_path.glob("studies.db*"):
        file.unlink()
    with pytest.raises(StorageFailed, match=r"studies\.db was removed while it was in use\. Everything finished") as no:
        driver.run()
    (saved,) = tmp_path.glob("*.rescued.db")
    assert f"go on with --storage {saved}." in str(no.value)
    with pytest.raises(StorageFailed, match="was removed"):
        driver.session.ledger.elapsed()
    driver.session.ledger.db.dispose()
    assert [file.name for file in tmp_path.iterdir()] == [saved.name]
    assert finished(saved) == 2
    Driver(f"sqlite:///{saved}", 4, search="random").run()
    assert finished(saved) == 4


def test_a_database_that_is_moved_is_completed_where_it_is_now(tmp_path: Path) -> None:
    driver, moved = begun(tmp_path), tmp_path / "elsewhere.db"
    (tmp_path / "studies.db").rename(moved)
    with pytest.raises(StorageFailed, match=r"was moved to .*elsewhere.db while it was in use.*go on with --storage"):
        driver.run()
    driver.session.ledger.db.dispose()
    assert list(tmp_path.glob("*.rescued.db")) == []
    assert finished(moved) == 2


def test_a_database_that_is_replaced_is_not_written_to(tmp_path: Path) -> None:
    driver, other = begun(tmp_path), tmp_path / "other.db"
    Driver(f"sqlite:///{other}", 1, search="random").run()
    os.replace(other, tmp_path / "studies.db")
    with pytest.raises(StorageFailed, match=r"was replaced by another file while it was in use. Everything finished"):
        driver.run()
    driver.session.ledger.db.dispose()
    (saved,) = tmp_path.glob("*.rescued.db")
    assert (finished(saved), finished(tmp_path / "studies.db")) == (2, 1)


def test_where_the_whole_folder_is_gone_the_copy_is_made_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "here").mkdir()
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(here)
    driver = begun(gone)
    shutil.rmtree(gone)
    with pytest.raises(StorageFailed, match="was removed"):
        driver.run()
    driver.session.ledger.db.dispose()
    (saved,) = here.iterdir()
    assert finished(saved) == 2
