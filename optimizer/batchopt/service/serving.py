"""A server process: the application behind uvicorn, on a socket that is bound before anything is said."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from batchopt.errors import InvalidInput
from batchopt.question.options import Options
from batchopt.service.app import create_app
from batchopt.signals import Interruption
from batchopt.store.database import open_database

BACKLOG = 128
"""Connections that wait while the application is being made."""

CLOSING_S = 5
"""How long calls under way may take once the server is told to end."""


def serve(storage: str, *, host: str, port: int, options: Options, say: Callable[[str], None]) -> None:
    """Serve a database until a signal ends it.

    Args:
        storage: a path or an SQLAlchemy URL.
        host, port: to listen on; any port that is free where 0.
        options: whose lease counts, and where checkpoints are.
        say: told in a line where the service is.

    Raises:
        InvalidInput: the address cannot be used.
        StorageError: the database cannot be used.
        Interrupted: a signal has ended it.
    """
    open_database(storage, create=True).db.dispose()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError as error:
            raise InvalidInput(
                f"{host}:{port} cannot be used: {error.strerror}. Use --port with another one."
            ) from None
        name = f"[{host}]" if family == socket.AF_INET6 else host
        say(f"http://{name}:{listening.getsockname()[1]} serves studies; /docs shows how, Ctrl-C ends it")
        config = uvicorn.Config(
            create_app(storage, options),
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=CLOSING_S,
        )
        # Uvicorn ends in order, then raises the signal again.
        with Interruption() as interruption:
            uvicorn.Server(config).run(sockets=[listening])
            interruption.check()
