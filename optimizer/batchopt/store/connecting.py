"""Connections to databases: patient with other writers, and not with a server that says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

BUSY_TIMEOUT_S = 60
"""How long a writer waits for another on SQLite: Optuna's default of 5 s fails under eight processes."""

LOOK_UP_S = 5
"""The same where who waits tries again (`transactions.py`), and looks up in between: for signals, and to say so."""

POOL_RECYCLE_S = 1800
"""Connections older than this are made anew: servers and firewalls drop those that were idle for hours."""

CONNECT_TIMEOUT_S = 10
SILENCE_S = 30
"""A server that does not answer for so long is taken for gone, so that a pulled cable is not waited for for ever."""

STATEMENT_SECONDS = 2 * SILENCE_S
"""How long a statement may take before its first answer; what waits for a lock is then asked again."""


def engine_to(url: URL, *, busy: float = BUSY_TIMEOUT_S, silence: float = STATEMENT_SECONDS, **options: Any) -> Engine:
    """An engine that waits as `engine_options` says; `options` as for SQLAlchemy."""
    ours = engine_options(url, busy=busy, silence=silence)
    arguments = ours.pop("connect_args") | options.pop("connect_args", {})
    return sa.create_engine(url, connect_args=arguments, **ours | options)


def engine_options(url: URL, *, busy: float, silence: float = STATEMENT_SECONDS) -> dict[str, Any]:
    """Waits for other writers, notices dead connections, and does not wait for dead servers for ever.

    Args:
        url: of the database.
        busy: seconds that SQLite waits for another writer.
        silence: seconds that a server may take to answer a statement.

    Returns:
        Options of SQLAlchemy's engine.
    """
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": busy}}
    driver = url.get_dialect().driver
    patience: dict[str, dict[str, float]] = {
        "psycopg": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": SILENCE_S // 3,
            "keepalives_interval": SILENCE_S // 6,
            "keepalives_count": 4,
            "tcp_user_timeout": 1000 * SILENCE_S,
        },
        "pymysql": {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": silence, "write_timeout": SILENCE_S},
    }
    # Built on the same C libraries, or after the same pattern.
    patience["psycopg2"], patience["mysqldb"] = patience["psycopg"], patience["pymysql"]
    # What the user's URL says stands.
    arguments = {name: value for name, value in patience.get(driver, {}).items() if name not in url.query}
    options = {"pool_pre_ping": True, "pool_recycle": POOL_RECYCLE_S, "connect_args": arguments}
    if driver == "psycopg":
        options["creator"] = _attentive(url, arguments, silence)
    return options


def _attentive(url: URL, arguments: dict[str, Any], silence: float) -> Callable[[], Any]:
    """Makes connections of psycopg that end where the server says nothing; it has no such option of its own.

    A server that was stopped, or that hangs, keeps its sockets open, and its kernel answers TCP's questions for it.
    """
    # What SQLAlchemy would give its driver.
    positional, named = sa.create_engine(url).dialect.create_connect_args(url)
    import psycopg

    class Attentive(psycopg.Connection[Any]):
        def wait(self, gen: Any, *rest: Any, **options: Any) -> Any:
            return super().wait(self._heard(gen), *rest, **options)

        def _heard(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            heard = time.monotonic()
            try:
                waited_for = next(gen)
                while True:
                    ready = yield waited_for
                    if ready:
                        heard = time.monotonic()
                    elif time.monotonic() - heard > silence:
                        self.pgconn.finish()
                        raise psycopg.OperationalError(f"the server has not answered for {silence:g} s")
                    waited_for = gen.send(ready)
            except StopIteration as end:
                return end.value

    return lambda: Attentive.connect(*positional, **{**named, **arguments})
