"""What kills, stops or cuts off a process, really done: nothing finished is lost or done twice, and others go on."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import optuna
import psutil
import pytest
import sqlalchemy as sa
from batchopt.errors import StorageError, StorageFailed
from batchopt.search.steps import Step
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.tables import checkpoints_table, database_clock, leases_table, turns_table
from scripts import findable
from servers import PrivateMariaDB, PrivatePostgres, refused
from sessions import EPOCHS, Driver, accuracy
from written_study import MACHINE, epoch

TESTS = Path(__file__).parents[1]
AHEAD = (
    "import runpy, time; now = time.time; time.time = lambda: now() + 3600;"
    "runpy.run_path('sessions.py', {}, '__main__')"
)

STOPS = """
import os, runpy, signal, sys
from optuna.storages import _CachedStorage

made, when = _CachedStorage.create_new_trial, sys.argv.pop(1)

def make(self, *arguments, **options):
    _CachedStorage.create_new_trial = made
    if when == "before":
        os.kill(os.getpid(), signal.SIGSTOP)
    trial_id = made(self, *arguments, **options)
    if when == "after":
        os.kill(os.getpid(), signal.SIGSTOP)
    return trial_id

_CachedStorage.create_new_trial = make
runpy.run_path("sessions.py", {}, "__main__")
"""
"""A session that stops itself once: before it makes its first trial, or just after."""

PATIENCE_S = 60.0
"""How long a process is waited for before its test fails."""

LEASE = 1.5
TRAINS_ALL = "random"
"""A search that gives no trial up (`sessions.py`): who takes one over trains it to its end. Our own would as soon prune
what it takes over, when others have become better meanwhile."""


class Process:
    """A session in a process of its own."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(
        self, *arguments: object, command: tuple[str, ...] = (), program: tuple[str, ...] = ("sessions.py",)
    ) -> None:
        self.process = subprocess.Popen(
            [*command, sys.executable, *program, *map(str, arguments)],
            cwd=TESTS,
            env=findable(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(self.process)
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.until("ready")
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def until(self, text: str) -> None:
        """Wait until it says something."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.said or text not in self.said[-1]:
            try:
                line = self._lines.get(timeout=deadline - time.monotonic())
            except (queue.Empty, ValueError):
                raise TimeoutError(f"{text!r} was not said in {PATIENCE_S:.0f} s, only {self.said}") from None
            assert line, "; ".join(self.said)
            self.said.append(line.strip())

    def end(self) -> list[str]:
        """Wait until it has ended well; returns all that it said."""
        returned = self.process.wait(timeout=PATIENCE_S)
        self.said += [line.strip() for line in iter(self._lines.get, "")]
        assert returned == 0, self.said
        return self.said

    def _read(self) -> None:
        """Its lines, and an empty one when there are no more."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """What a test that failed has left running is ended with it."""
    yield
    while Process.started:
        process = Process.started.pop()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def trials_of(storage: str) -> list[optuna.trial.FrozenTrial]:
    """The trials, as Optuna alone sees them, of a study in which nothing is left over and the doctor finds nothing."""
    database = open_database(storage, create=False)
    with database.db.connect() as connection:
        for table in (leases_table, checkpoints_table, turns_table):
            assert connection.execute(sa.select(table)).all() == []
    trials = optuna.load_study(study_name="mnist", storage=database.storage).get_trials(deepcopy=False)
    database.db.dispose()
    assert examine(storage).findings == []
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    return trials


def held_by(storage: str, owner: str) -> list[int]:
    """The numbers of the trials whose leases are of an owner with this in its name."""
    engine = sa.create_engine(storage)
    with engine.connect() as connection:
        query = sa.select(leases_table.c.trial_id).where(leases_table.c.owner.contains(owner))
        ids = connection.execute(query).scalars().all()
        numbers = sa.text("select number from trials where trial_id = :id")
        found = [int(connection.execute(numbers, {"id": id_}).scalar_one()) for id_ in ids]
    engine.dispose()
    return found


def stop_with_a_trial(storage: str, pid: int) -> int:
    """Stop a process while it trains; returns the number of its trial."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        if held := held_by(storage, f":{pid}:"):
            return held[0]
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)


def ends(*processes: Process) -> Counter[str]:
    """How often each trial came to an end, in all processes together."""
    said = [line for process in processes for line in process.said]
    return Counter(line.split()[1] for line in said if line.startswith(("complete", "pruned")))


@pytest.mark.slow
@pytest.mark.parametrize(("search", "trials"), [("auto", 4), ("tpe", 14)])
def test_a_study_that_is_killed_everywhere_is_the_study_that_was_not(tmp_path: Path, search: str, trials: int) -> None:
    """Signal 9 before a random statement, again and again: asking, training, checkpointing, telling, pruning."""
    whole, killed, log = f"sqlite:///{tmp_path}/whole.db", f"sqlite:///{tmp_path}/killed.db", tmp_path / "log"
    command = [sys.executable, "sessions.py", "kill", killed, str(trials), search, str(log)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills >= 10
    Driver(whole, trials, search=search).run()
    found = trials_of(killed)
    assert "PRUNED" in {trial.state.name for trial in found}
    for trial, expected in zip(found, trials_of(whole), strict=True):
        assert (trial.params, trial.state, trial.values) == (expected.params, expected.state, expected.values)
        assert trial.intermediate_values == expected.intermediate_values
    trained = Counter(line for line in log.read_text().splitlines() if line.startswith("trained"))
    assert sum(trained.values()) - len(trained) <= kills


@pytest.mark.parametrize(
    "any_storage",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow), pytest.param("mysql", marks=pytest.mark.slow)],
    indirect=True,
)
def test_a_process_that_was_stopped_for_longer_than_its_lease_finds_its_late_results_refused(any_storage: str) -> None:
    """SIGSTOP, takeover by another process in mid-session, SIGCONT."""
    stopped, heir = (Process(any_storage, 3, 0.2, LEASE, TRAINS_ALL) for _ in range(2))
    heir.until("ready")
    stopped.go()
    stopped.until("trained 0 1")
    heir.go()
    heir.until("trained")
    held = stop_with_a_trial(any_storage, stopped.process.pid)
    heir.until(f"trained {held} ")
    os.kill(stopped.process.pid, signal.SIGCONT)
    stopped.end()
    heir.end()
    assert f"lost {held}" in stopped.said
    trials = trials_of(any_storage)
    assert len(trials) == 3
    assert ends(stopped, heir) == {str(number): 1 for number in range(3)}


def stop_where_the_newest_trial_is_nobodys(storage: str, pid: int) -> None:
    """Stop a process when it has put its latest trial, not the first one, aside, and is not writing."""
    newest = (
        "select count(*) from trials where number > 0 and state = 'RUNNING'"
        " and trial_id = (select max(trial_id) from trials) and trial_id not in (select trial_id from batchopt_leases)"
    )
    with closing(sqlite3.connect(storage.removeprefix("sqlite:///"), timeout=0, isolation_level=None)) as connection:
        for _ in range(1000):
            os.kill(pid, signal.SIGSTOP)
            with contextlib.suppress(sqlite3.OperationalError):
                # Locked while it writes.
                connection.execute("begin immediate")
                (found,) = connection.execute(newest).fetchone()
                connection.execute("rollback")
                if found:
                    return
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)
    raise TimeoutError("no trial was put aside")


@pytest.mark.parametrize(
    ("when", "search"),
    [
        ("after", "auto"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in [("before", "auto"), ("before", "tpe"), ("after", "tpe")]
        ),
    ],
)
def test_a_process_that_was_stopped_in_its_turn_begins_nothing_by_what_it_read_before(
    tmp_path: Path, when: str, search: str
) -> None:
    """SIGSTOP around the making of a trial, others made by another process, SIGCONT: each is trained as what it is."""
    storage = f"sqlite:///{tmp_path}/studies.db"
    stopped = Process("-c", STOPS, when, storage, 4, 0.02, LEASE, search, program=())
    other = Process(storage, 4, 0.02, LEASE, search)
    other.until("ready")
    stopped.go()
    while psutil.Process(stopped.process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.02)
    other.go()
    other.until("trained 1")
    stop_where_the_newest_trial_is_nobodys(storage, other.process.pid)
    os.kill(stopped.process.pid, signal.SIGCONT)
    stopped.until("turn lost")
    os.kill(other.process.pid, signal.SIGCONT)
    stopped.end()
    other.end()
    trials = trials_of(storage)
    assert len(trials) == 4
    assert ends(stopped, other) == {str(number): 1 for number in range(4)}
    for trial in trials:
        step = Step(trial.number, trial.params["batch_size"], trial.params["learning_rate"], EPOCHS)
        assert trial.intermediate_values == {at: accuracy(step, at) for at in trial.intermediate_values}


@pytest.mark.slow
@pytest.mark.parametrize("server", [PrivatePostgres, PrivateMariaDB])
def test_a_server_that_is_stopped_and_started_is_waited_for(
    tmp_path: Path, server: type[PrivatePostgres] | type[PrivateMariaDB]
) -> None:
    """Two processes in mid-study; both say it in one line, and go on."""
    database = server(tmp_path)
    database.start()
    try:
        processes = [Process(database.url, 4, 0.1) for _ in range(2)]
        for process in processes:
            process.until("ready")
        for process in processes:
            process.go()
        for process in processes:
            process.until("trained")
        database.stop()
        time.sleep(2)
        database.start()
        for process in processes:
            process.end()
        trials = trials_of(database.url)
    finally:
        database.stop()
    assert len(trials) == 4
    assert ends(*processes) == {str(number): 1 for number in range(4)}
    for process in processes:
        assert sum("cannot be reached" in line for line in process.said) == 1, process.said
        assert sum("is back after" in line for line in process.said) == 1, process.said


@pytest.mark.slow
@pytest.mark.parametrize("server_storage", ["postgresql", "mysql"], indirect=True)
def test_a_clock_that_is_an_hour_off_takes_over_nothing_and_loses_nothing(server_storage: str) -> None:
    """Leases go by the database's clock: the process that is ahead neither takes what is held nor holds for an hour.

    Its `time.time` is an hour ahead, and not its system's clock, which no test may set: what this would notice is a
    lease that is reckoned with a process's time.
    """
    right = Process(server_storage, 4, 0.2, 3.0)
    ahead = Process("-c", AHEAD, server_storage, 4, 0.2, 3.0, program=())
    right.until("ready")
    ahead.until("ready")
    right.go()
    right.until("trained 0 1")
    ahead.go()
    ahead.until("trained")
    held = ahead.said[-1].split()[1]
    engine = sa.create_engine(server_storage)
    with engine.connect() as connection:
        left = connection.execute(sa.select(leases_table.c.expires_at - database_clock())).scalars().all()
    engine.dispose()
    assert all(-1.0 < seconds <= 3.0 for seconds in left)
    ahead.process.kill()
    ahead.process.wait()
    right.end()
    assert not any(line.startswith("lost") for line in right.said)
    assert len(trials_of(server_storage)) == 4
    assert any(line.startswith(f"trained {held}") for line in right.said)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        refused("a file system cannot be mounted here", mounted.stderr.strip())
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_when_a_trial_ends_costs_no_finished_trial(small_disk: Path) -> None:
    """The study stops in one line; with some space it goes on."""
    storage, filler = f"sqlite:///{small_disk}/studies.db", small_disk / "filler"
    session = Driver(storage, 2).session
    step = session.ask()
    assert step is not None
    for at in range(1, EPOCHS + 1):
        session.ledger.add_epoch(step.trial, MACHINE, epoch(at, 0.5), 0.0)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(StorageFailed, match=r"full\. Everything finished is kept: free some space, then") as refusal:
        session.keep(step.trial, EPOCHS - 1, bytes(1_000_000))
    assert "\n" not in str(refusal.value)
    session.ledger.db.dispose()
    filler.unlink()
    heir = Driver(storage, 2)
    with heir.session.ledger.db.begin() as connection:
        # Both sessions are of this process, which lives.
        connection.execute(leases_table.update().values(expires_at=0.0))
    heir.run()
    assert len(trials_of(storage)) == 2


def test_a_read_only_database_is_refused_in_one_line(small_disk: Path) -> None:
    storage = f"sqlite:///{small_disk}/studies.db"
    Driver(storage, 1).run()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match=r"no permission to write to it\. Change that"):
        Driver(storage, 2)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert len(trials_of(storage)) == 1


@pytest.fixture
def two_machines() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Two network namespaces, joined by a bridge on which this machine has an address of its own.

    Returns:
        That address, and the command by which each of them runs a program; the first one's name is its second word.
    """
    tag, subnet = secrets.token_hex(2), f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
    bridge = f"bo{tag}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    names = [f"batchopt-{tag}-{letter}" for letter in "ab"]
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names, start=2):
            ip("netns", "add", name)
            ip("link", "add", f"{bridge}{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{bridge}{number}", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{subnet}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        # With a hostname and processes of its own, as a machine has.
        own = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        subprocess.run([*own, "true"], check=True, capture_output=True)
        commands = [
            ("ip", "netns", "exec", name, *own, "sh", "-c", 'hostname "$0"; exec "$@"', f"machine-{at}")
            for at, name in enumerate(names)
        ]
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)
        refused("network namespaces cannot be made here", str(reason).strip())
    yield f"{subnet}.1", commands
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=True)
    ip("link", "del", bridge)


@pytest.mark.slow
def test_two_machines_with_one_server_go_on_without_each_other(
    tmp_path: Path, two_machines: tuple[str, list[tuple[str, ...]]]
) -> None:
    """One loses its network for longer than its lease, the other takes over; then it is back, and its results late."""
    address, (one, other) = two_machines
    server = PrivatePostgres(tmp_path, host=address)
    server.start()
    try:
        cut = Process(server.url, 4, 0.2, LEASE, TRAINS_ALL, command=one)
        heir = Process(server.url, 4, 0.2, LEASE, TRAINS_ALL, command=other)
        heir.until("ready")
        cut.go()
        cut.until("trained 0 1")
        heir.go()
        heir.until("trained")
        link = ["ip", "-n", one[3], "link", "set", "eth0"]
        while not (held := held_by(server.url, "machine-0")):
            time.sleep(0.02)
        subprocess.run([*link, "down"], check=True)
        heir.until(f"trained {held[0]} ")
        subprocess.run([*link, "up"], check=True)
        cut.end()
        heir.end()
        assert f"lost {held[0]}" in cut.said
        assert len(trials_of(server.url)) == 4
        assert ends(cut, heir) == {str(number): 1 for number in range(4)}
    finally:
        server.stop()
