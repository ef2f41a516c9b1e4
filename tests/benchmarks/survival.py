"""What survival costs: kills and what they cost, takeover, checkpoints, many processes at once, long studies.

`PYTHONPATH=tests python tests/benchmarks/survival.py [kills|formula|takeover|checkpoints|crowd|growth ...]` prints the
figures asked for, or all. `KILLS` and `CROWD_SECONDS` in the environment change their 100 and 60.
Servers are those of the tests; one that does not answer is left out.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import optuna
import psutil
import sqlalchemy as sa
from servers import SERVERS
from sessions import EPOCHS, QUESTION, Session
from written_study import MACHINE, SPACE, epoch

from optimizer.store.database import open_database
from optimizer.store.ledger import Ledger
from optimizer.store.making import found_or_made, stamp_if_unmade

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


def kills(count: int = KILLS) -> None:
    """Real studies of the reference model, script, worker or both killed at random moments, again and again."""
    rng, struck = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/studies.db"
        options = ["--trials", "400", "--epochs", "5", "--no-stop", "--quiet"]
        command = [sys.executable, str(ROOT / "studies/mnist.py"), "--storage", storage, *STUDY, *options]
        finished: dict[int, tuple[str, float | None]] = {}
        study = None
        while sum(struck.values()) < count:
            parent = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            whom = "worker"
            while whom == "worker" and sum(struck.values()) < count and parent.poll() is None:
                time.sleep(rng.uniform(4, 14) if whom == "worker" else 0)
                whom = rng.choice(["worker", "worker", "script", "both"])
                workers = parent.children() if parent.poll() is None else []
                for process in workers if whom in ("worker", "both") else []:
                    process.send_signal(signal.SIGKILL)
                if whom in ("script", "both") and parent.poll() is None:
                    parent.send_signal(signal.SIGKILL)
                struck[whom] += 1
            parent.kill()
            parent.wait()
            study = optuna.load_study(study_name="mnist", storage=storage)
            for trial in study.get_trials(deepcopy=False):
                if trial.state.is_finished():
                    ended = (trial.state.name, trial.value if trial.state.name == "COMPLETE" else None)
                    assert finished.setdefault(trial.number, ended) == ended, "a finished trial has changed"
        assert study is not None
        states = Counter(trial.state.name for trial in study.get_trials(deepcopy=False))
        print(f"kills: {dict(struck)}; finished trials seen and never changed: {len(finished)}; states {dict(states)}")


def formula_kills() -> None:
    """Sessions killed before any statement, on the formula: what was trained again is counted exactly."""
    for search in ("auto", "tpe"):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            storage = f"sqlite:///{folder}/studies.db"
            command = [sys.executable, "sessions.py", "kill", storage, "12", search, str(log)]
            done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
            killed = int(done.stdout)
            lines = [line for line in log.read_text().splitlines() if line.startswith("trained")]
            again = len(lines) - len(set(lines))
            trials = optuna.load_study(study_name="mnist", storage=storage).get_trials(deepcopy=False)
            states = Counter(trial.state.name for trial in trials)
            print(
                f"{search}: {killed} kills survived, trials {dict(states)}, lost {12 - len(trials)}, twice 0, "
                f"{again} epochs trained again, {again / killed:.2f} a kill"
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
    """What keeping the state of the reference model takes, against an epoch of training."""
    content = os.urandom(1_221_000)
    with storages() as found:
        for kind, storage in found.items():
            database = open_database(storage, create=True)
            ledger = Ledger(database, found_or_made(database, "mnist"))
            with ledger.turn():
                number = ledger.study.ask(SPACE.distributions()).number
                ledger.begin(number)
            plain, saved = [], []
            for at in range(1, 41):
                for seconds, state in ((plain, None), (saved, content)):
                    started = time.perf_counter()
                    ledger.add_epoch(number, MACHINE, epoch(at), 0.0, checkpoint=state)
                    seconds.append(time.perf_counter() - started)
            cost = statistics.median(saved) - statistics.median(plain)
            print(
                f"{kind}: an epoch is written in {1e3 * statistics.median(plain):.1f} ms, with its state (1.2 MB) in "
                f"{1e3 * statistics.median(saved):.1f} ms: under 5 % of each epoch from {20 * cost:.2f} s on"
            )
            ledger.prune(number)
            database.engine.dispose()


CALLER = """
import sys, time
from optimizer.store.database import open_database
from optimizer.store.ledger import Ledger
from optimizer.store.making import found_or_made, stamp_if_unmade
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
            database.engine.dispose()

            def opened(storage: str = storage) -> Session:
                session = Session(storage, 1_000_000, search="random")
                session.shared._look()
                return session

            opening = timed(lambda: opened().engine.dispose(), rounds=3)
            session = opened()
            asks, tells = [], []
            for _ in range(10):
                started = time.perf_counter()
                with session.ledger.turn():
                    step = session.shared.next(session.end)
                asked = time.perf_counter()
                assert step is not None
                session.ledger.add_epoch(step.trial, MACHINE, epoch(1), 0.0)
                session.search.tell(step.trial, 1, 0.5, 1.0)
                told = time.perf_counter()
                asks.append(1e3 * (asked - started))
                tells.append(1e3 * (told - asked))
                session.ledger.prune(step.trial)
                session.shared.ended(step.trial)
            session.engine.dispose()
            print(
                f"{count} trials: opened and read in {opening:.0f} ms, ask {statistics.median(asks):.1f} ms, "
                f"tell {statistics.median(tells):.1f} ms"
            )


PARTS = {
    "kills": kills,
    "formula": formula_kills,
    "takeover": takeover,
    "checkpoints": checkpoints,
    "crowd": crowd,
    "growth": growth,
}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
