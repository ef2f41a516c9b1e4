"""A server process: the application behind uvicorn, on a socket that is bound before anything is said."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable
from contextlib import closing

import uvicorn

from batchopt.errors import InvalidInput
from batchopt.service.app import make_app
from batchopt.service.guard import Keys, check_host
from batchopt.signals import Interruption

BACKLOG = 128
"""Connections that wait while the application is being made."""

CLOSING_S = 5
"""How long calls under way may take once the server is told to end."""

KEEP_ALIVE_S = 75
"""How long a connection waits for its job's next epoch."""

SWITCH_INTERVAL_S = 0.0005
"""How long the thread that decides may keep the interpreter from those that answer: Python's own 5 ms are waited for
several times in each answer."""


def serve(storage: str, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve a database until a signal ends it.

    Args:
        storage: a path or an SQLAlchemy URL.
        host, port: to listen on; any port that is free where 0.
        say: told in a line where the service is.

    Raises:
        InvalidInput: the address cannot be used, or other machines would reach it without a token.
        StorageError: the database cannot be used.
        Interrupted: a signal has ended it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or else asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an acknowledgement.
    kind = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with closing(Keys(storage)) as keys, socket.socket(*kind) as listening:
        check_host(host, keys, storage)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError as error:
            raise InvalidInput(
                f"{host}:{port} cannot be used: {error.strerror}. Use --port with another one."
            ) from None
        name = f"[{host}]" if family == socket.AF_INET6 else host
        _log_to_stderr()
        config = uvicorn.Config(
            make_app(storage, keys),
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSING_S,
        )
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        say(f"http://{name}:{listening.getsockname()[1]} serves studies; /docs shows how, Ctrl-C ends it")
        # Uvicorn ends in order, then raises the signal again.
        with Interruption() as interruption:
            uvicorn.Server(config).run(sockets=[listening])
            interruption.check()


def _log_to_stderr() -> None:
    """A line for each call, and for what goes wrong."""
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("batchopt.service", logging.INFO), ("uvicorn", logging.WARNING)):
        logging.getLogger(name).addHandler(lines)
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).propagate = False
