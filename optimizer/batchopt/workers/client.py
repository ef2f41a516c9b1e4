"""A worker as seen from the study's process: start it, talk to it, notice its death. No TensorFlow here.

It is a child process, or one on whatever node of a Ray cluster has room for it (`ray_actor.py`); either way there is a
socket to it, and the same worker at its other end.
"""

from __future__ import annotations

import contextlib
import pickle

from batchopt.training.by_value import opening
from batchopt.training.messages import Answer, Request, Setup
from batchopt.workers.process import ChildProcess, Host


class Worker:
    """One worker process and the connection to it."""

    def __init__(self, setup: Setup) -> None:
        self._killed = False
        self._host: Host
        if setup.cluster is None:
            self._host = ChildProcess(setup.device)
        else:
            from batchopt.workers.ray_actor import RayActor

            self._host = RayActor(setup.device, setup.cluster, opening(setup))
        self.connection = self._host.connection
        self.setup = setup
        if setup.cluster is None:
            try:
                self._send(opening(setup))
            except BaseException:
                # What cannot be pickled, or a signal.
                self.kill()
                raise

    @property
    def pid(self) -> int:
        """The process's number, on its node."""
        return self._host.pid

    @property
    def node(self) -> str:
        """Where it runs: the node of a cluster; empty for this machine."""
        return self._host.node

    def send(self, request: Request) -> None:
        """Ask. A dead worker is noticed by `receive`."""
        self._send(pickle.dumps(request))

    def receive(self) -> Answer:
        """The next answer; blocks until there is one.

        Raises:
            Died: the process ended instead.
        """
        try:
            answer: Answer = self.connection.recv()
        except (EOFError, ConnectionResetError, OSError):
            raise self._host.death() from None
        return answer

    def kill(self) -> None:
        """End the process at once, whatever it is doing; a second time does nothing."""
        if not self._killed:
            self._killed = True
            self._host.kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def _send(self, content: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(content)
