"""Commands as processes of their own that have imported what all of them import: most of a short command's time.

A server imports once and is forked for each command (`multiprocessing`'s forkserver); the rest is as from a shell: a
working folder, arguments, both outputs, the exit code.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pty
import runpy
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        *("batchopt.cli.batchopt", "batchopt.cli.study_script", "batchopt.study.study"),
        *("batchopt.service.serving", "batchopt.study.command", "batchopt.study.searching"),
    ]
)


class Running:
    """A command that goes on; `pid` is its process'.

    Args:
        arguments: `batchopt` and its own, or a script's path and its own.
        folder: to run in.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.arguments = list(arguments)
        self._kept = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._kept.name, name) for name in ("out", "err")]
        for output in self._outputs:
            output.touch()
        self._process = _PROCESSES.Process(
            target=_become, args=(self.arguments, str(folder), tuple(map(str, self._outputs)))
        )
        self._process.start()
        self.pid = self._process.pid or 0

    def lines(self) -> Iterator[str]:
        """The lines of its standard output as they come, until it ends."""
        with self._outputs[0].open() as output:
            line = ""
            while True:
                ended = self._process.exitcode is not None
                line += output.readline()
                if line.endswith("\n"):
                    yield line.rstrip("\n")
                    line = ""
                elif ended:
                    return
                else:
                    time.sleep(0.01)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.join()
        self._kept.cleanup()

    def ended(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """What it came to.

        Raises:
            subprocess.TimeoutExpired: it went on for longer, in seconds; it is killed.
        """
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout)
        with self._kept:
            return subprocess.CompletedProcess(self.arguments, code, *(each.read_text() for each in self._outputs))


def _become(arguments: list[str], folder: str, outputs: tuple[str, str]) -> None:
    for number, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    first, *sys.argv[1:] = arguments
    sys.argv[0] = first
    if first == "batchopt":
        from batchopt.cli.batchopt import main

        main()
    sys.path.insert(0, str(Path(first).parent))
    runpy.run_path(first, run_name="__main__")


def run_command(arguments: Sequence[str], folder: Path, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `batchopt` with its arguments, or a script, in a folder; as `subprocess.run` answers.

    Raises:
        subprocess.TimeoutExpired: it went on for longer, in seconds; it is killed.
    """
    return Running(arguments, folder).ended(timeout)


BATCHOPT = (sys.executable, "-c", "from batchopt.cli.batchopt import main; main()")


def on_terminal(arguments: Sequence[str], folder: Path, *, columns: int = 110) -> tuple[int, str]:
    """The exit code of a program that runs on a terminal of its own, and all that was shown there, as it came."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
    process = subprocess.Popen(arguments, cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        ready, _, _ = select.select([master], [], [], 0.5)
        try:
            if ready:
                shown += os.read(master, 65536)
            elif process.poll() is not None:
                break
        except OSError:
            break
    os.close(master)
    return process.wait(), shown.decode()


def say(*arguments: str) -> str:
    """What `batchopt` says in this process, both streams, through a pipe."""
    from batchopt.cli.batchopt import main

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setattr(sys, "argv", ["batchopt", *arguments])
        with pytest.raises(SystemExit):
            main()
    return output.getvalue()


def worker_processes(of: int | None = None) -> list[psutil.Process]:
    """The workers among the children of a process, this one's where None; its others serve `run_command`."""
    found = []
    for child in psutil.Process(of).children():
        # One that has just ended has no command line any more.
        with contextlib.suppress(psutil.Error):
            if "batchopt.training.worker" in child.cmdline():
                found.append(child)
    return found
