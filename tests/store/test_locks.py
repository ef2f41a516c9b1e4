"""SQLite's lock on a database in use: nothing that this program does, in any of its processes, takes it away.

POSIX drops all locks of a process on a file when the process closes any descriptor of it. The next process that then
closes the database thinks that it is the last one, and deletes the log that is still written to.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from batchopt.report.answer.reading import list_studies, read_study
from batchopt.report.show.study_report import read_report
from batchopt.store.access import reading
from batchopt.store.database import check_storage, open_database
from batchopt.store.doctor.doctor import examine, repair
from batchopt.store.transfer.transfer import export, merge
from scripts import findable
from written_study import write_study

TESTS = Path(__file__).parents[1]
BATCHOPT = [sys.executable, "-c", "from batchopt.cli.batchopt import main; main()"]


def locked(file: Path, pid: int) -> bool:
    """Whether a process has a lock on a file, as the kernel sees it."""
    inode = file.stat().st_ino
    entries = (line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line)
    return any((entry[4], entry[5].rpartition(":")[2]) == (str(pid), str(inode)) for entry in entries)


def has_open(file: Path, pid: int) -> bool:
    """Whether a process has a file open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if link.readlink() == file:
                return True
        except OSError:
            continue
    return False


def list_beside(file: Path) -> None:
    """Another process that opens the database and closes it again."""
    subprocess.run([*BATCHOPT, "list", "--storage", str(file)], check=True, capture_output=True)


def test_whatever_looks_at_a_database_in_use_leaves_its_lock_alone(tmp_path: Path) -> None:
    """By whatever name of it."""
    file, link = tmp_path / "studies.db", tmp_path / "link.db"
    write_study(file)
    link.symlink_to(file)
    database = open_database(str(file), create=True)
    with database.db.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM trials").all()
    assert locked(file, os.getpid())

    def read(storage: str) -> None:
        with reading(storage):
            pass

    looks: list[Callable[[str], object]] = [
        *(list_studies, read_report, read_study, examine, repair, read),
        lambda storage: check_storage(storage, create=True),
        lambda storage: open_database(storage, create=False).db.dispose(),
        lambda storage: open_database(storage, create=True).db.dispose(),
        lambda storage: export(storage, str(tmp_path / f"{time.monotonic_ns()}.db")),
        lambda storage: merge([storage], str(tmp_path / f"{time.monotonic_ns()}.db")),
    ]
    for look in looks:
        for name in (str(file), str(link), f"sqlite:///{os.path.relpath(file)}"):
            look(name)
            assert locked(file, os.getpid()), (look, name)
    database.db.dispose()
    assert not locked(file, os.getpid())


KILLED = """
import sys
from sessions import Driver
from batchopt.store.database import check_storage

storage = sys.argv[1]
sessions = [Driver(storage, 2, search="random")]
sessions[0].run()
sessions.append(Driver(storage, 6, search="random", say=lambda line: print(line, flush=True)))
check_storage(storage, create=True)
print("ready", flush=True)
sys.stdin.readline()
sessions[1].run()
sys.stdin.readline()
"""
"""Two studies run one after the other in one process, as in a notebook."""


def test_what_was_told_as_complete_is_there_after_signal_9_however_many_have_looked(tmp_path: Path) -> None:
    """A second run in one process, `batchopt list` beside it, then kill -9 in the moment after the last trial."""
    file = tmp_path / "studies.db"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"sqlite:///{file}"],
        cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    told = 0
    for line in process.stdout:
        if line == "ready\n":
            list_beside(file)
            process.stdin.write("\n")
            process.stdin.flush()
        told += line.startswith("complete")
        if told == 4:
            process.kill()
            break
    process.communicate()
    list_beside(file)
    assert examine(str(file)).findings == []
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone() == (6,)
        assert connection.execute("SELECT count(*) FROM batchopt_epochs").fetchone() == (6 * 8,)


def test_what_is_deleted_in_the_dashboard_is_deleted_although_others_have_looked(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    write_study(file)
    write_study(file, "second")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [*BATCHOPT, "dashboard", "--storage", str(file), "--port", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        while "shows it" not in process.stdout.readline():
            pass
        list_beside(file)
        assert locked(file, process.pid)
        address = f"http://127.0.0.1:{port}/api/studies"
        for _ in range(100):
            try:
                urllib.request.urlopen(address, timeout=10).close()
                break
            except OSError:
                time.sleep(0.1)
        urllib.request.urlopen(urllib.request.Request(f"{address}/2", method="DELETE"), timeout=10).close()
        process.kill()
    finally:
        process.kill()
        process.communicate()
    assert [study["study"] for study in list_studies(str(file))] == ["mnist"]


RUNS_TWICE = """
import sys
from batchopt import Budget, Goal, Options, SearchSpace, Study, Task
from batchopt.datasets import load_mnist
from mnist import build_model

options = Options(device="cpu", engine="fused", search="random", probe=False, train_examples=2000)
study = Study(Task(build_model, load_mnist), SearchSpace([64, 128], (1e-3, 1e-2)), Goal(epochs=1),
              name="twice", storage=sys.argv[1], options=options)
for trials in (1, 2):
    study.run(Budget(trials=trials))
study.confirm(2)
"""


@pytest.mark.slow
def test_a_real_study_that_runs_twice_and_confirms_keeps_its_lock_all_the_while(tmp_path: Path) -> None:
    """Looked at every few milliseconds: while the process has the file open, the kernel knows of its lock."""
    file = tmp_path / "studies.db"
    process = subprocess.Popen([sys.executable, "-c", RUNS_TWICE, str(file)], cwd=TESTS.parent, env=findable())
    seen, without = 0, 0
    while process.poll() is None:
        if file.exists() and file.stat().st_size > 100_000 and has_open(file, process.pid):
            seen += 1
            # Between the opening of a file and the first look into it there is none yet.
            without = 0 if locked(file, process.pid) else without + 1
            assert without < 20
        time.sleep(0.01)
    assert process.returncode == 0
    assert seen > 100
    assert examine(str(file)).findings == []
