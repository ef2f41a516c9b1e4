"""Databases that a disk, a copy or somebody else has damaged, and what every reader of them must do all the same.

`python flipping.py [COUNT] [FIRST]` damages a study in so many ways and prints what was wrong with the answers: no
traceback, one line, within ten seconds, and nothing written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click
from batchopt.cli.batchopt import batchopt
from batchopt.errors import BatchoptError
from batchopt.study.finding import find
from written_study import GOAL, SPACE, write_study

COMMANDS = (
    ["list"],
    ["list", "--json"],
    ["trials"],
    ["trials", "--json"],
    ["trials", "--csv"],
    ["report"],
    ["report", "--json"],
    ["report", "--html", "page.html"],
    ["report", "--goal", "time"],
    ["doctor"],
    ["export", "--to", "exported.db"],
    ["export", "--study", "mnist", "--to", "one.db"],
    ["a session"],
)
"""What reads a database; the last is the look that a study takes at its database before it opens it."""

READERS = [
    ["list"],
    ["report", "--json"],
    ["trials", "--csv"],
    ["doctor"],
    ["export", "--to", "exported.db"],
    ["a session"],
]
"""One of each kind."""

WRITTEN = ("exported.db", "one.db", "page.html")
"""What these commands are told to write."""

MOST_SECONDS = 10
"""A reader that takes longer hangs."""


def said(arguments: list[str], path: Path | str) -> str:
    """What a command says where it refuses; empty where it answers.

    Raises:
        Exception: any traceback that a user would see.
    """
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            if arguments == ["a session"]:
                find("mnist", str(path), lambda examples: SPACE, GOAL, None)
                return ""
            batchopt.main([*arguments, "--storage", str(path)], standalone_mode=False)
    except (BatchoptError, click.ClickException) as error:
        return str(error)
    except SystemExit:
        # The doctor has found something.
        return ""
    return ""


def files(folder: Path) -> dict[str, str]:
    """What lies in a folder, by name; SQLite's shared memory, in which readers have to lock, holds nothing of it."""
    kept = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what computes for longer, however much else the machine does."""

    def late(*anything: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def faults(path: Path, commands: Sequence[list[str]]) -> Iterator[str]:
    """What is wrong with the answers of some commands to a database, which is alone in its folder."""
    before = files(path.parent)
    for command in commands:
        try:
            with limited(MOST_SECONDS):
                line = said(command, path)
        except Exception:  # noqa: BLE001  what a user would see as a traceback
            yield f"{command}: {traceback.format_exc(limit=-3)}"
        else:
            if "\n" in line:
                yield f"{command} says several lines: {line}"
        for name in WRITTEN:
            Path(name).unlink(missing_ok=True)
    after = files(path.parent)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        yield f"written to or left behind: {changed}"


def random_bytes(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 3, 30))):
        content[rng.randrange(100, len(content))] = rng.randrange(256)


def header(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        content[rng.randrange(100)] = rng.randrange(256)


def one_bit(rng: random.Random, content: bytearray) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut(rng: random.Random, content: bytearray) -> None:
    del content[rng.choice((0, 1, 99, 512, 4096, rng.randrange(len(content)), rng.randrange(len(content)))) :]


def pages(rng: random.Random, content: bytearray) -> None:
    """A page that another one was written over, or that was never written."""
    count = len(content) // 4096
    at, other = rng.randrange(count) * 4096, rng.randrange(count) * 4096
    content[at : at + 4096] = content[other : other + 4096] if rng.random() < 0.5 else bytes(4096)


DAMAGES = (random_bytes, header, one_bit, cut, pages)


def write_logged(path: Path) -> None:
    """A study whose last writes are in SQLite's log still, as a killed process leaves them."""
    aside = path.with_name("aside.db")
    write_study(aside)
    with closing(sqlite3.connect(aside)) as connection:
        connection.execute("pragma wal_autocheckpoint = 0")
        for number in range(20):
            connection.execute("update trial_values set value = value + 1e-6 * ?", (number,))
            connection.execute("update study_user_attributes set value_json = value_json")
            connection.commit()
        shutil.copy(aside, path)
        shutil.copy(f"{aside}-wal", f"{path}-wal")
    for left in path.parent.glob("aside.db*"):
        left.unlink()


def flip(written: Path, path: Path, seed: int) -> str:
    """Damage a copy of a database, or of its log where it has one; returns how."""
    rng = random.Random(seed)
    for left in path.parent.iterdir():
        left.unlink()
    log = Path(f"{written}-wal")
    shutil.copy(written, path)
    target = path
    if log.exists():
        target = rng.choice([path, Path(shutil.copy(log, f"{path}-wal"))])
    content, damage = bytearray(target.read_bytes()), rng.choice(DAMAGES)
    damage(rng, content)
    target.write_bytes(content)
    return f"{damage.__name__} of {target.name}"


def sweep(sources: Sequence[Path], folder: Path, seeds: Sequence[int], commands: Sequence[list[str]]) -> list[str]:
    """What is wrong with the answers to damaged copies of these databases, in turn, in a folder of their own."""
    found = []
    for seed in seeds:
        path = folder / "studies.db"
        how = flip(sources[seed % len(sources)], path, seed)
        found += [f"{seed}, {how}: {fault}" for fault in faults(path, commands)]
    return found


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as kept:
        plain, logged, work = (Path(kept) / name for name in ("plain", "logged", "work"))
        for folder in (plain, logged, work):
            folder.mkdir()
        write_study(plain / "studies.db")
        write_logged(logged / "studies.db")
        (Path(kept) / "here").mkdir()
        os.chdir(Path(kept) / "here")
        began, wrong = time.perf_counter(), []
        for seed in range(first, first + count):
            for fault in sweep([plain / "studies.db", logged / "studies.db"], work, [seed], READERS):
                print(fault, flush=True)
                wrong.append(fault)
        seconds = time.perf_counter() - began
        print(f"{count} damaged databases, {count * len(READERS)} answers, {len(wrong)} faults, {seconds:.0f} s")
        sys.exit(bool(wrong))
