"""Connections to databases: patient with other writers, and not with a server that says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
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

ABANDONED = {
    "postgresql": f"SET idle_in_transaction_session_timeout = '{SILENCE_S}s'",
    "mysql": f"SET SESSION wait_timeout = {SILENCE_S}",
    "mariadb": f"SET SESSION wait_timeout = {SILENCE_S}",
}
"""Has a server end a transaction whose program says nothing for so long: a machine that was cut off in the middle of
one would keep its locks, and every other machine waiting, until the server's own questions of TCP, hours later."""


def engine_to(
    url: URL, *, busy: float = BUSY_TIMEOUT_S, silence: float = STATEMENT_SECONDS, locks: bool = True, **options: Any
) -> Engine:
    """An engine that waits as `engine_options` says; `options` as for SQLAlchemy."""
    ours = engine_options(url, busy=busy, silence=silence, locks=locks)
    arguments = ours.pop("connect_args") | options.pop("connect_args", {})
    return sa.create_engine(url, connect_args=arguments, **ours | options)


def engine_options(url: URL, *, busy: float, silence: float = STATEMENT_SECONDS, locks: bool = True) -> dict[str, Any]:
    """Waits for other writers, notices dead connections, and does not wait for dead servers for ever.

    Args:
        url: of the database.
        busy: seconds that SQLite waits for another writer.
        silence: seconds that a server may take to answer a statement.
        locks: whether transactions may hold locks, and are ended where they are abandoned.

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
    prompt = ABANDONED.get(url.get_backend_name()) if locks and driver in patience else None
    return {
        "pool_pre_ping": True,
        "pool_recycle": POOL_RECYCLE_S,
        "connect_args": arguments,
        "creator": _attentive(url, arguments, silence, prompt),
    }


def _attentive(url: URL, arguments: dict[str, Any], silence: float, prompt: str | None) -> Callable[[], Any]:
    """Makes connections that begin with a statement, and where psycopg makes them, end where the server says nothing.

    A server that was stopped, or that hangs, keeps its sockets open, and its kernel answers TCP's questions for it;
    psycopg has no option for that.
    """
    dialect = sa.create_engine(url).dialect
    # What SQLAlchemy would give its driver.
    positional, named = dialect.create_connect_args(url)
    connect = _psycopg(silence) if dialect.driver == "psycopg" else dialect.loaded_dbapi.connect

    def connected() -> Any:
        connection = connect(*positional, **{**named, **arguments})
        if prompt:
            with closing(connection.cursor()) as cursor:
                cursor.execute(prompt)
            connection.commit()
        return connection

    return connected


def _psycopg(silence: float) -> Callable[..., Any]:
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

    return Attentive.connect
