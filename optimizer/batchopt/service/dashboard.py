"""optuna-dashboard under the same door and token: its WSGI application, called on a thread for each request."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from batchopt.store.database import open_database

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]


class Dashboard:
    """The dashboard of a database, which is opened when somebody first looks.

    Args:
        storage: a path or an SQLAlchemy URL.
    """

    def __init__(self, storage: str) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._app: Any = None

    def answer(self, request: Request, body: bytes) -> Response:
        """What the dashboard answers."""
        with self._lock:
            if self._app is None:
                from optuna_dashboard import wsgi

                self._app = wsgi(open_database(self._storage, create=True).storage)
        said: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], *error: object) -> None:
            said.update(status=int(status.split()[0]), headers=headers)

        parts = self._app(_environ(request, body), start)
        try:
            content = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        response = Response(content, said["status"])
        for name, value in said["headers"]:
            if name.lower() != "content-length":
                response.headers.append(name, value)
        return response


def add_dashboard(app: FastAPI, storage: str) -> None:
    """The dashboard at its own paths."""
    dashboard = Dashboard(storage)

    for path in ("/dashboard", "/dashboard/{rest:path}", "/static/{rest:path}", "/api/{rest:path}", "/favicon.ico"):

        @app.api_route(path, methods=METHODS, include_in_schema=False)
        async def answer(request: Request) -> Response:
            return await run_in_threadpool(dashboard.answer, request, await request.body())


def _environ(request: Request, body: bytes) -> dict[str, Any]:
    """A request as WSGI has it."""
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.url.path.encode().decode("latin-1"),
        "QUERY_STRING": request.url.query,
        "SERVER_NAME": request.url.hostname or "localhost",
        "SERVER_PORT": str(request.url.port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        # Whoever may come in is decided already, and tokens are nobody else's to see.
        if name not in ("content-length", "content-type", "authorization"):
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ
