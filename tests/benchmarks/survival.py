"""What survival costs: kills and what they cost, takeover, checkpoints, many processes at once, long studies.

`PYTHONPATH=tests python tests/benchmarks/survival.py [kills|company|formula|takeover|checkpoints|crowd|growth ...]`
prints the figures asked for, or all. `KILLS` and `CROWD_SECONDS` in the environment change their 100 and 60.
Servers are those of the tests; one that does not answer is left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import psutil
import sqlalchemy as sa
from batchopt import Budget, Goal, Options, SearchSpace, Task
from batchopt.datasets import load_mnist
from batchopt.events import ignore
from batchopt.signals import Interruption
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from batchopt.study.session import Session
from batchopt.training.messages import EpochDone, Train
from batchopt.workers.slot import Slot
from batchopt.workers.starting import first_setup, ready_slot
from reference import mnist
from servers import SERVERS
from sessions import EPOCHS, QUESTION, Driver
from written_study import MACHINE, SPACE, epoch

ROOT = Path(__file__).parents[2]
STUDY = ["--train-examples", "10000", "--batch-sizes", "32..512", "--engine", "fused", "--device", "cpu", "--no-probe"]
KILLS = int(os.environ.get("KILLS", "100"))
CROWD_SECONDS = float(os.environ.get("CROWD_SECONDS", "60"))


@contextmanager
def storages() -> Iterator[dict[str, str]]:
    """A fresh database of each kind that answers."""
    made: list[tuple[sa.Engine, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        found = {"SQLite": f"sqlite:///{folder}/studies.db"}
        for kind, (variable, default) in SERVERS.items():
            url, name = sa.make_url(os.environ.get(variable, default)), f"batchopt_bench_{secrets.token_hex(4)}"
            engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
            try:
                with engine.connect() as connection:
                    connection.execute(sa.text(f"CREATE DATABASE {name}"))
            except sa.exc.OperationalError as error:
                print(f"no {kind}: {str(error).splitlines()[0]}")
                continue
            made.append((engine, name))
            found[kind] = url.set(database=name).render_as_string(hide_password=False)
        yield found
        for engine, name in made:
            with engine.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name}"))
            engine.dispose()


WRITES = """
CREATE TABLE IF NOT EXISTS writes (trial_id INTEGER, epoch INTEGER);
CREATE TRIGGER IF NOT EXISTS written AFTER INSERT ON batchopt_epochs
BEGIN INSERT INTO writes VALUES (new.trial_id, new.epoch); END
"""
"""Every epoch that is ever written, as the database itself sees it."""


def kills(count: int = KILLS) -> None:
    """Real studies of the reference model, script, worker or both killed at random moments, again and again."""
    rng, struck = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "studies.db")
        options = ["--trials", "400", "--epochs", "5", "--no-stop", "--quiet"]
        command = [sys.executable, str(ROOT / "studies/mnist.py"), "--storage", str(file), *STUDY, *options]
        finished: dict[int, tuple[str, float | None]] = {}
        changed = 0
        while struck.total() < count:
            parent = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            whom = "worker"
            while whom == "worker" and struck.total() < count and parent.poll() is None:
                time.sleep(rng.uniform(4, 14))
                whom = rng.choice(["worker", "worker", "script", "both"])
                workers = parent.children() if parent.poll() is None else []
                for process in workers if whom in ("worker", "both") else []:
                    process.send_signal(signal.SIGKILL)
                if whom in ("script", "both") and parent.poll() is None:
                    parent.send_signal(signal.SIGKILL)
                struck[whom] += 1
                if file.exists():
                    _log_writes(file)
            if parent.poll() is None:
                parent.kill()
            parent.wait()
            for number, ended in _finished(file).items():
                changed += finished.setdefault(number, ended) != ended
        # Whoever comes last finds all that was begun, and ends it.
        subprocess.run([*command, "--time-budget", "1s"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        last, total = _finished(file), struck.total()
        lost = sum(number not in last for number in finished)
        with closing(sqlite3.connect(file)) as connection:
            again = connection.execute("SELECT count(*) - count(DISTINCT trial_id || ' ' || epoch) FROM writes")
            epochs_again = int(again.fetchone()[0])
            running = connection.execute("SELECT count(*) FROM trials WHERE state = 'RUNNING'").fetchone()[0]
        findings = examine(str(file)).findings
        print(
            f"kills: {total} survived {dict(struck)}; {len(last)} trials finished, {lost} lost, {changed} changed or "
            f"done twice, {running} left running; {epochs_again} epochs trained again, {epochs_again / total:.2f} a "
            f"kill; findings of the doctor: {len(findings)}"
        )


COMPANY = ("list", "report", "doctor", "export")
"""What others do beside a study while it is killed."""

COMPANY_SECONDS = (8.0, 20.0)
"""Until a kill."""


def company(count: int = KILLS) -> None:
    """A study killed while others look at it, run beside it, or confirm what it says.

    What it has told as complete is looked for at the end, as what was seen as finished after any kill.
    """
    rng, killed = random.Random(1), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        file, told, changed = Path(folder, "studies.db"), set[int](), 0
        finished: dict[int, tuple[str, float | None]] = {}

        def script(trials: int, *more: str) -> list[str]:
            options = ["--trials", str(trials), "--epochs", "2", "--no-stop", "--search", "random", *more]
            return [sys.executable, str(ROOT / "studies/mnist.py"), "--storage", str(file), *STUDY, *options]

        while killed.total() < count:
            kind = rng.choice(["alone", "second run", "confirming"]) if len(finished) > 2 else "alone"
            commands = [script(100_000)] * (1 if kind == "alone" else 2)
            if kind == "confirming":
                commands[0] = script(1, "--confirm")
            logs = [Path(folder, f"log-{killed.total()}-{at}") for at in range(len(commands))]
            processes = []
            for each, log in zip(commands, logs, strict=True):
                with log.open("w") as output:
                    processes.append(subprocess.Popen(each, cwd=folder, stdout=output, stderr=subprocess.STDOUT))
            until = time.monotonic() + rng.uniform(*COMPANY_SECONDS)
            while time.monotonic() < until:
                beside = rng.choice(COMPANY)
                copy = ["--to", f"{folder}/copy-{time.monotonic_ns()}.db"] if beside == "export" else []
                look = [
                    sys.executable,
                    "-c",
                    "from batchopt.cli.batchopt import main; main()",
                    beside,
                    "--storage",
                    str(file),
                ]
                subprocess.run([*look, *copy], cwd=folder, capture_output=True)
            for process in processes:
                killed[kind] += process.poll() is None
                process.kill()
                process.wait()
            for log in logs:
                lines = [line.split() for line in log.read_text().splitlines()]
                told |= {int(words[1]) for words in lines if words[:1] == ["trial"] and words[-1] == "complete"}
            for number, ended in (_finished(file) if file.exists() else {}).items():
                changed += finished.setdefault(number, ended) != ended
        # Whoever comes last finds all that was begun, and ends it.
        last = script(100_000, "--time-budget", "1s", "--quiet")
        subprocess.run(last, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        there = _finished(file)
        lost = sum(number not in there for number in finished.keys() | told)
        twice = len(_trials(file)) - len({trial.number for trial in _trials(file)})
        findings = Counter(finding.kind for finding in examine(str(file)).findings)
        print(
            f"company: {killed.total()} kills {dict(killed)}; {len(there)} trials finished, {len(told)} told; {lost} "
            f"lost, {twice} twice, {changed} changed; findings of the doctor: {dict(findings)}"
        )


def _trials(file: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="mnist", storage=f"sqlite:///{file}").get_trials(deepcopy=False)


def _log_writes(file: Path) -> None:
    """Have the database log the epochs written to it, once it has the table."""
    with closing(sqlite3.connect(file, timeout=60)) as connection, contextlib.suppress(sqlite3.OperationalError):
        connection.executescript(WRITES)


def _finished(file: Path) -> dict[int, tuple[str, float | None]]:
    """State and value of each finished trial, by number."""
    study = optuna.load_study(study_name="mnist", storage=f"sqlite:///{file}")
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return {trial.number: (trial.state.name, trial.values[0] if trial.values else None) for trial in ended}


def formula_kills() -> None:
    """Sessions killed before any statement, on the formula: what was trained again is counted exactly."""
    for search in ("auto", "tpe"):
        with tempfile.TemporaryDirectory() as folder:
            log, file = Path(folder, "log"), Path(folder, "studies.db")
            command = [sys.executable, "sessions.py", "kill", f"sqlite:///{file}", "12", search, str(log)]
            done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
            killed = int(done.stdout)
            lines = log.read_text().splitlines()
            trained = [line for line in lines if line.startswith("trained")]
            again = len(trained) - len(set(trained))
            # Said after the end is written: a session killed in between leaves one unsaid, and none says another's.
            ends = Counter(line.split()[1] for line in lines if line.startswith(("complete", "pruned")))
            twice = sum(count > 1 for count in ends.values())
            trials = optuna.load_study(study_name="mnist", storage=f"sqlite:///{file}").get_trials(deepcopy=False)
            states = Counter(trial.state.name for trial in trials)
            print(
                f"{search}: {killed} kills survived, trials {dict(states)}, lost {12 - len(trials)}, twice {twice}, "
                f"{again} epochs trained again, {again / killed:.2f} a kill; findings of the doctor: "
                f"{len(examine(str(file)).findings)}"
            )


def takeover(lease: float = 3.0) -> None:
    """Seconds from signal 9 to the first epoch of another process: of the same system, and as of another."""
    with storages() as found:
        for kind, storage in found.items():
            for where, command in (
                ("here", []),
                ("elsewhere", ["unshare", "--uts", "--pid", "--fork", "--kill-child"]),
            ):
                study = [sys.executable, "sessions.py", storage, "200", "0.2", str(lease), "random"]
                both = []
                for prefix in (command, []):
                    process = subprocess.Popen(
                        [*prefix, *study], cwd=ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                    )
                    assert process.stdout is not None
                    process.stdout.readline()
                    both.append(process)
                for process in both:
                    assert process.stdin is not None
                    process.stdin.write("\n")
                    process.stdin.flush()
                victim, heir = both
                assert victim.stdout is not None and heir.stdout is not None
                line = ""
                while not line.startswith("trained"):
                    line = victim.stdout.readline()
                # The unshared one's only child is the session.
                for process in [*psutil.Process(victim.pid).children(), psutil.Process(victim.pid)]:
                    process.kill()
                struck, trial = time.monotonic(), line.split()[1]
                line = ""
                while not line.startswith(f"trained {trial} "):
                    line = heir.stdout.readline()
                    if not line:
                        break
                print(f"takeover, {kind}, {where}: {time.monotonic() - struck:.1f} s at a lease of {lease:g} s")
                for process in both:
                    process.kill()
                    process.communicate()


def checkpoints() -> None:
    """What keeping the state of the reference model takes: of a transaction, and of the training it is kept from."""
    content = os.urandom(1_221_000)
    with storages() as found:
        for kind, storage in found.items():
            database = open_database(storage, create=True)
            ledger = Ledger(database, found_or_made(database, "mnist"))
            number = _begun(ledger)
            plain, saved = [], []
            for at in range(1, 41):
                for seconds, state in ((plain, None), (saved, content)):
                    started = time.perf_counter()
                    ledger.add_epoch(number, MACHINE, epoch(at), 0.0, checkpoint=state)
                    seconds.append(time.perf_counter() - started)
            print(
                f"{kind}: an epoch is written in {1e3 * statistics.median(plain):.1f} ms, with its state (1.2 MB) in "
                f"{1e3 * statistics.median(saved):.1f} ms"
            )
            ledger.prune(number)
            database.db.dispose()
    with tempfile.TemporaryDirectory() as folder, Interruption() as interruption:
        database = open_database(f"{folder}/studies.db", create=True)
        ledger = Ledger(database, found_or_made(database, "mnist"))
        setup = first_setup(
            Task(mnist.build_model, load_mnist), Options(device="cpu"), SearchSpace([32, 128, 512], (1e-4, 1e-1)),
            goal=Goal(), budget=Budget(), known_engines={},
        )  # fmt: skip
        slot = ready_slot(setup, smallest=32, interruption=interruption, listener=ignore)
        for size in (32, 128, 512):
            _cost_of_states(ledger, slot, size)
        slot.worker.kill()
        database.db.dispose()


def _begun(ledger: Ledger) -> int:
    with ledger.turn():
        number = ledger.study.ask(SPACE.distributions()).number
        ledger.begin(number)
    return number


def _cost_of_states(ledger: Ledger, slot: Slot, batch_size: int, epochs: int = 12, rounds: int = 6) -> None:
    """Wall seconds of real epochs with states kept as a study keeps them, and with none, in turns."""
    number, kept, save_seconds, started = _begun(ledger), 0, 0.0, 0.0
    taken: dict[bool, list[float]] = {True: [], False: []}
    for at in range(rounds + 1):
        for keeps in (True, False):
            # After the last epoch of a trial no state is kept.
            request = Train(2 * at + keeps, 0, batch_size, 1e-3, {}, 0, epochs, last_epoch=99 if keeps else 0)
            slot.worker.send(dataclasses.replace(request, save_seconds=save_seconds))
            for _ in range(epochs):
                done = slot.worker.receive()
                assert isinstance(done, EpochDone)
                # The first of each compiles or loads.
                started = started if done.figures.epoch > 1 else time.perf_counter()
                wrote = time.perf_counter()
                ledger.add_epoch(number, MACHINE, done.figures, 0.0, checkpoint=done.checkpoint)
                if done.checkpoint is not None:
                    kept, save_seconds = kept + 1, time.perf_counter() - wrote
            if at:
                taken[keeps].append((time.perf_counter() - started) / (epochs - 1))
    ledger.prune(number)
    cost = statistics.median(a / b - 1 for a, b in zip(taken[True], taken[False], strict=True))
    print(
        f"batch size {batch_size}: an epoch takes {1e3 * statistics.median(taken[False]):.0f} ms; with states kept, of "
        f"{kept} of {epochs * (rounds + 1)} epochs, {100 * cost:+.1f} % (goal: under 5 %)"
    )


CALLER = """
import sys, time
from batchopt.store.database import open_database
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from sessions import QUESTION
from written_study import MACHINE, SPACE, epoch

database = open_database(sys.argv[1], create=True)
ledger = Ledger(database, found_or_made(database, "crowd"))
stamp_if_unmade(ledger, QUESTION)
print("ready", flush=True)
sys.stdin.readline()
until, calls = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < until:
    with ledger.turn():
        number = ledger.study.ask(SPACE.distributions()).number
        assert ledger.begin(number)
    for at in range(1, 6):
        ledger.add_epoch(number, MACHINE, epoch(at, at / 10), 0.0)
    ledger.complete(number, 0.5)
    calls += 8
print(calls, flush=True)
"""


def crowd() -> None:
    """Storage calls a second of eight processes on one study: ask, begin, five epochs, an end."""
    with storages() as found:
        for kind, storage in found.items():
            # Made by one of them, so that all begin with the same.
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", CALLER, storage, str(CROWD_SECONDS)],
                    cwd=ROOT / "tests",
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
                for _ in range(8)
            ]  # fmt: skip
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()
            with ThreadPoolExecutor(8) as pool:
                said = list(pool.map(lambda process: process.communicate("\n"), processes))
            errors = [
                err.splitlines()[-1] for process, (_, err) in zip(processes, said, strict=True) if process.returncode
            ]
            calls = sum(int(out) for out, _ in said if out.strip().isdigit())
            trials = optuna.load_study(study_name="crowd", storage=storage).get_trials(deepcopy=False)
            whole = sum(trial.state.name == "COMPLETE" and len(trial.intermediate_values) == 5 for trial in trials)
            print(
                f"{kind}: {calls / CROWD_SECONDS:.0f} calls/s of 8 processes in {CROWD_SECONDS:.0f} s, "
                f"{len(errors)} errors {errors[:1]}, {whole} of {len(trials)} trials whole"
            )


def timed(work: Callable[[], object], rounds: int = 5) -> float:
    """Median milliseconds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds)


def growth() -> None:
    """Milliseconds to open a study, to ask and to tell, with more and more trials in it."""
    with tempfile.TemporaryDirectory() as folder:
        for count in (10, 100, 1000, 10_000):
            storage = f"sqlite:///{folder}/{count}.db"
            database = open_database(storage, create=True)
            ledger = Ledger(database, found_or_made(database, "mnist"))
            stamp_if_unmade(ledger, QUESTION)
            rng = random.Random(0)
            done = [
                optuna.create_trial(
                    params={"batch_size": rng.choice([16, 64, 256]), "learning_rate": 10 ** rng.uniform(-4, -1)},
                    distributions=SPACE.distributions(),
                    value=rng.random(),
                    intermediate_values={at: rng.random() for at in range(1, EPOCHS + 1)},
                )
                for _ in range(count)
            ]
            ledger.study.add_trials(done)
            database.db.dispose()

            def opened(storage: str = storage) -> Session:
                session = Driver(storage, 1_000_000, search="random").session
                session._shared._look()
                return session

            opening = timed(lambda: opened().release(), rounds=3)
            session = opened()
            asks, tells = [], []
            for _ in range(10):
                started = time.perf_counter()
                step = session.ask()
                asked = time.perf_counter()
                assert step is not None
                session.tell(step.trial, MACHINE, epoch(1))
                told = time.perf_counter()
                asks.append(1e3 * (asked - started))
                tells.append(1e3 * (told - asked))
                session.give_up([step.trial])
            session.release()
            print(
                f"{count} trials: opened and read in {opening:.0f} ms, ask {statistics.median(asks):.1f} ms, "
                f"tell {statistics.median(tells):.1f} ms"
            )


PARTS = {
    "kills": kills,
    "company": company,
    "formula": formula_kills,
    "takeover": takeover,
    "checkpoints": checkpoints,
    "crowd": crowd,
    "growth": growth,
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
