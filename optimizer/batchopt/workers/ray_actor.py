"""A worker on a node of a Ray cluster: an actor there starts the worker process, and carries what is said to and fro.

Ray finds the node, gives the GPU and says what became of it. What study and worker say goes over a socket of its own,
so that the study's loop waits for workers here and there in one way. A worker that dies on its node is told as one that
died on this machine is; a node that vanishes is a worker that was lost.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

import ray

from batchopt.text import first_line
from batchopt.training.messages import ClusterShare
from batchopt.workers.process import ChildProcess, Died, Lost

TOKEN_BYTES = 32
LOOK_SECONDS = 0.5
"""How often it is looked whether an actor that has not called yet ever will."""

GOODBYE_SECONDS = 5
"""How long an actor has to end its worker by itself."""

SILENCE_SECONDS = 20
"""A node that has not answered for so long is taken for gone: a pulled cable says nothing."""

PROOF_SECONDS = 5
"""How long who calls may take to prove that it is the actor; the next one waits so long."""

LOOPBACK = "127.0.0.1"

CHUNK = 1 << 18


class RayActor:
    """A worker in the cluster that `ray.init` has joined.

    Args:
        device: as `--device`.
        share: what the actor asks of the cluster; it waits until there is so much.
        setup: the first message, sent when it is there, so that nobody waits for a cluster that has no room.
    """

    def __init__(self, device: str, share: ClusterShare, setup: bytes) -> None:
        ours, self._theirs = socket.socketpair()
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.node = ""
        self._setup = setup
        self._token = secrets.token_bytes(TOKEN_BYTES)
        # On a cluster of this machine alone nobody else is to knock.
        self._listener = socket.create_server((LOOPBACK if share.local else ray.util.get_node_ip_address(), 0))
        actor = ray.remote(Bridge).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD"
        )
        self._actor = actor.remote(device)
        self._end = self._actor.carry.remote(self._listener.getsockname(), self._token)
        threading.Thread(target=self._carry, daemon=True).start()

    @property
    def pid(self) -> int:
        return int(ray.get(self._actor.pid.remote()))

    def death(self) -> Died:
        """How the worker came to its end, as its actor tells it, or Ray, where the actor is gone too."""
        try:
            code, log, kernel_killed = ray.get(self._end, timeout=SILENCE_SECONDS)
        except ray.exceptions.OutOfMemoryError as error:
            return Lost(first_line(error), out_of_memory=True)
        except ray.exceptions.RayError as error:
            return Lost(first_line(error))
        return Died(code, log, kernel_killed=kernel_killed)

    def kill(self) -> None:
        """End the worker, and the actor, which tidies up behind it where it still can."""
        self._listener.close()
        _shut(self._theirs)
        ray.wait([self._end], timeout=GOODBYE_SECONDS)
        ray.kill(self._actor)
        self.connection.close()

    def _carry(self) -> None:
        remote = self._called()
        if remote is not None:
            with contextlib.suppress(OSError), Connection(os.dup(remote.fileno())) as first:
                first.send_bytes(self._setup)
            carry_both_ways(self._theirs, remote)
        _shut(self._theirs)

    def _called(self) -> socket.socket | None:
        """The actor's call; None where it will not come."""
        self._listener.settimeout(LOOK_SECONDS)
        while True:
            try:
                remote, address = self._listener.accept()
            except TimeoutError:
                if ray.wait([self._end], timeout=0)[0]:
                    return None
            except OSError:
                # Killed before it called.
                return None
            else:
                if _proved(remote, self._token, asks=True):
                    self.node = address[0]
                    return remote
                remote.close()


class Bridge:
    """The actor: a worker process on this node, and the way to it."""

    def __init__(self, device: str) -> None:
        self._process = ChildProcess(device)

    def pid(self) -> int:
        """The worker's process number."""
        return self._process.pid

    def carry(self, address: tuple[str, int], token: bytes) -> tuple[int, str, bool]:
        """Carry what is said between the study, at `address`, and the worker, until one of them ends.

        Returns:
            How the worker ended: exit code, last words, and whether the kernel had killed for want of memory.
        """
        local = socket.socket(fileno=os.dup(self._process.connection.fileno()))
        with socket.create_connection(address) as remote:
            if not _proved(remote, token, asks=False):
                raise ConnectionError("who listens there is not the study")
            study_ended = carry_both_ways(remote, local)
        if study_ended:
            self._process.kill()
            return 0, "", False
        death = self._process.death()
        return death.exit_code, death.log, death.kernel_killed


def carry_both_ways(one: socket.socket, other: socket.socket) -> bool:
    """Carry bytes between two sockets until one of them ends; shuts both.

    Returns:
        Whether it was the first one.
    """
    for end in (one, other):
        _keep_alive(end)
    ended: list[socket.socket] = []

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                sink.sendall(data)
        ended.append(source)
        _shut(sink)
        _shut(source)

    back = threading.Thread(target=carry, args=(other, one), daemon=True)
    back.start()
    carry(one, other)
    back.join()
    return ended[0] is one


def _keep_alive(end: socket.socket) -> None:
    if end.family not in (socket.AF_INET, socket.AF_INET6):
        return
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", SILENCE_SECONDS // 2),
        ("TCP_KEEPINTVL", SILENCE_SECONDS // 4),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 1000 * SILENCE_SECONDS),
    ):
        if hasattr(socket, option):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _proved(end: socket.socket, token: bytes, *, asks: bool) -> bool:
    """Whether both ends know the token, which does not travel: each answers a challenge of the other (HMAC).

    What follows is neither encrypted nor signed, and it is unpickled: the cluster's network is trusted, as Ray does.
    """
    end.setblocking(True)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PROOF_SECONDS, 0))
    steps = (deliver_challenge, answer_challenge) if asks else (answer_challenge, deliver_challenge)
    connection: Connection[Any, Any] = Connection(os.dup(end.fileno()))
    with connection:
        try:
            for step in steps:
                step(connection, token)
        except (OSError, EOFError, AuthenticationError, AssertionError):
            return False
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 0))
    return True


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
