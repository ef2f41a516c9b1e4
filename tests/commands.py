"""Commands as processes of their own that have imported what all of them import: most of a short command's time.

A server imports once and is forked for each command (`multiprocessing`'s forkserver); the rest is as from a shell: a
working folder, arguments, both outputs, the exit code.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["batchopt.cli.batchopt", "batchopt.cli.study_script", "batchopt.study.study"])


def _become(arguments: list[str], folder: str, outputs: tuple[str, str]) -> None:
    for number, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY), number)
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
    with tempfile.TemporaryDirectory() as kept:
        outputs = Path(kept, "out"), Path(kept, "err")
        for output in outputs:
            output.touch()
        process = _PROCESSES.Process(target=_become, args=(list(arguments), str(folder), tuple(map(str, outputs))))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        return subprocess.CompletedProcess(
            list(arguments), process.exitcode, *(output.read_text() for output in outputs)
        )


def worker_processes(of: int | None = None) -> list[psutil.Process]:
    """The workers among the children of a process, this one's where None; its others serve `run_command`."""
    found = []
    for child in psutil.Process(of).children():
        # One that has just ended has no command line any more.
        with contextlib.suppress(psutil.Error):
            if "batchopt.training.worker" in child.cmdline():
                found.append(child)
    return found
