"""A worker's process on this machine, and how it can end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from importlib.machinery import PathFinder
from multiprocessing.connection import Connection
from typing import Any, Protocol

from batchopt.machine.cgroup import out_of_memory_kills
from batchopt.training.surroundings import own_folders
from batchopt.workers.folders import WorkerFolder

NEEDED = (__name__.partition(".")[0], "numpy", "tensorflow", "keras", "optuna", "sqlalchemy", "cloudpickle", "psutil")
"""What a worker is made of: no module of the user's stands for one of these."""

LOG_LINES_SHOWN = 15

OUT_OF_MEMORY_WORDS = (
    "std::bad_alloc",
    "OOM when allocating",
    "Out of memory while trying to allocate",
    "out of memory",
)
"""The last words of a process that ends itself where no memory is left."""


class Died(Exception):
    """The worker process ended without an answer.

    Attributes:
        how: in a few words.
        exit_code: as `subprocess` gives it: negative for a signal.
        out_of_memory: whether the kernel killed it for want of memory, or it said so itself at the end.
        killed: whether it was signal 9, which the kernel also sends for want of memory.
    """

    def __init__(self, exit_code: int, log: str, *, kernel_killed: bool = False) -> None:
        how = f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
        self.how = f"the worker ended by {how}"
        super().__init__(self.how + (f"; its last words:\n{log}" if log else ""))
        self.log = log
        self.kernel_killed = kernel_killed
        self.exit_code = exit_code
        self.killed = exit_code == -signal.SIGKILL
        self.out_of_memory = (self.killed and kernel_killed) or any(text in log for text in OUT_OF_MEMORY_WORDS)


class Lost(Died):
    """The worker is gone with its node, or was ended by the cluster; nobody can say how."""

    def __init__(self, reason: str, *, out_of_memory: bool = False) -> None:
        self.how = f"the worker was lost: {reason}"
        Exception.__init__(self, self.how)
        self.exit_code = -1
        self.killed = False
        self.out_of_memory = out_of_memory


class Host(Protocol):
    """Where a worker runs.

    Attributes:
        connection: to the worker.
        node: the node of a cluster; empty for this machine.
    """

    connection: Connection[Any, Any]
    node: str

    @property
    def pid(self) -> int:
        """The worker's process number there."""

    def death(self) -> Died:
        """How the worker came to its end; waits for it."""

    def kill(self) -> None:
        """End it at once."""


class ChildProcess:
    """A worker process of this machine.

    It has a session of its own, so that Ctrl-C on the terminal reaches the study alone, which decides what to do.
    """

    node = ""

    def __init__(self, device: str) -> None:
        ours, theirs = socket.socketpair()
        self._kills_before = out_of_memory_kills()
        # TensorFlow leaves files of its own behind when it is killed; they go with this folder.
        self._folder = WorkerFolder()
        self._log = self._folder.path / "log"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(worker_path()),
            "TMPDIR": str(self._folder.path),
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        }
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        with ExitStack() as unless_started, self._log.open("wb") as log:
            unless_started.callback(self._folder.remove)
            self._process = subprocess.Popen(
                # Without -P a `keras.py` in the current folder would be Keras.
                [sys.executable, "-P", "-m", "batchopt.training.worker", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno(), self._folder.lock],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
            unless_started.pop_all()
        theirs.close()
        self.connection: Connection[Any, Any] = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self._process.pid

    def death(self) -> Died:
        """How the process came to its end; waits for it."""
        code = self._process.wait()
        return Died(code, self._last_words(), kernel_killed=out_of_memory_kills() > self._kills_before)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._folder.remove()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-LOG_LINES_SHOWN:])


def worker_path() -> list[str]:
    """Where a worker looks for modules: where this process does, so that modules beside a script are found there too.

    The current folder is that of this process. A folder of the user's in which something is called as one of `NEEDED`
    comes last.
    """
    folders = [folder or os.getcwd() for folder in sys.path]
    others = [folder for folder in folders if os.path.abspath(folder) not in own_folders()]
    last = [folder for folder in folders if folder not in others and _hides(folder, others)]
    return [folder for folder in folders if folder not in last] + last


def _hides(folder: str, others: list[str]) -> bool:
    """Whether a folder has a module that is called as one of those that a worker is made of, and is another one."""
    for name in NEEDED:
        found, known = PathFinder.find_spec(name, [folder]), sys.modules.get(name)
        if found is None or found.origin is None:
            continue
        if known is None and PathFinder.find_spec(name, others) is not None:
            return True
        if known is not None and found.origin != known.__file__:
            return True
    return False
