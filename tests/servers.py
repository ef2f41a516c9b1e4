"""Database servers for tests: those that run here already, and private ones that may be stopped and started.

Where `BATCHOPT_TEST_REQUIRED=1`, a server that is missing is a failure, and not a reason to skip.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

SERVERS = {
    "postgresql": ("BATCHOPT_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"),
    "mysql": ("BATCHOPT_TEST_MYSQL", "mysql+pymysql://root@127.0.0.1:3306/test"),
}


def missing(what: str) -> None:
    """Skip for want of something of this machine, or fail where it must be there."""
    if os.environ.get("BATCHOPT_TEST_REQUIRED") == "1":
        pytest.fail(f"BATCHOPT_TEST_REQUIRED=1, and {what}")
    pytest.skip(what)


def refused(what: str, reason: str) -> None:
    """Skip where only root, or a container with more rights, may do something; `missing` for any other reason."""
    if any(word in reason.lower() for word in ("not permitted", "permission denied", "superuser", "not root")):
        pytest.skip(f"{what}: {reason}")
    missing(f"{what}: {reason}")


@contextmanager
def own_database(kind: str) -> Iterator[str]:
    """The URL of a database of its own on a server that runs; dropped afterwards."""
    variable, default = SERVERS[kind]
    url = sa.make_url(os.environ.get(variable, default))
    name = f"batchopt_test_{secrets.token_hex(4)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
    except (sa.exc.SQLAlchemyError, ModuleNotFoundError) as error:
        missing(f"no {kind} answers at {url.render_as_string()}: {str(error).splitlines()[0]}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            force = " WITH (FORCE)" if kind == "postgresql" else ""
            connection.execute(sa.text(f"DROP DATABASE {name}{force}"))
        engine.dispose()


def cut_connections(storage: str) -> int:
    """End every other connection to a database, as its administrator can; returns how many there were."""
    url = sa.make_url(storage)
    engine = sa.create_engine(url.set(database="test"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        if url.get_backend_name() == "postgresql":
            cut = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
            return len(connection.execute(cut, {"name": url.database}).all())
        listed = sa.text("SELECT id FROM information_schema.processlist WHERE db = :name")
        ids = connection.execute(listed, {"name": url.database}).scalars().all()
        for id_ in ids:
            try:
                connection.execute(sa.text(f"KILL {id_}"))
            except sa.exc.OperationalError as error:
                if "Unknown thread id" not in str(error):
                    raise
        return len(ids)


class PrivatePostgres:
    """A PostgreSQL server of a test's own, with its files in a folder, on a port of its own."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        programs = [Path(path) for path in sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
        found = shutil.which("pg_ctl")
        self._programs = programs[-1] if programs else Path(found).parent if found else None
        if self._programs is None:
            missing("PostgreSQL's own programs are not installed")
        self._data = folder / "postgresql"
        self._log = folder / "postgresql.log"
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://postgres@{host}:{self.port}/postgres"
        self._host = host
        # PostgreSQL does not run as root.
        self._user = None
        if os.getuid() == 0:
            try:
                self._user = pwd.getpwnam("postgres").pw_name
            except KeyError:
                missing("tests run as root, and there is no user postgres to run a PostgreSQL as")
            self._data.mkdir()
            shutil.chown(self._data, self._user)
            for parent in (folder, *folder.parents):
                if parent != Path("/") and parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._call("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-N")
        if host != "127.0.0.1":
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 0.0.0.0/0 trust\n")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self._data} -c listen_addresses={self._host} -c fsync=off"
        self._call("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._data / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a restart does: connections are ended, transactions under way rolled back."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", "fast", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        assert self._programs is not None
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, user=self._user, check=True, capture_output=True, cwd="/", timeout=60)


class PrivateMariaDB:
    """A MariaDB server of a test's own."""

    def __init__(self, folder: Path) -> None:
        server, install = shutil.which("mariadbd", path=_PATH), shutil.which("mariadb-install-db", path=_PATH)
        if server is None or install is None:
            missing("MariaDB's own programs are not installed")
        self._server, self._data = str(server), folder / "mariadb"
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"mysql+pymysql://root@127.0.0.1:{self.port}/test"
        self._user = ["--user=root"] if os.getuid() == 0 else []
        made = [str(install), "--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"]
        subprocess.run([*made, *self._user], check=True, capture_output=True, timeout=120)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        files = [f"--datadir={self._data}", f"--socket={self._data}/socket", f"--pid-file={self._data}/pid"]
        net = ["--bind-address=127.0.0.1", f"--port={self.port}", "--innodb-flush-log-at-trx-commit=0"]
        self._process = subprocess.Popen(
            [self._server, "--no-defaults", *files, *net, *self._user],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        engine = sa.create_engine(self.url, poolclass=sa.pool.NullPool)
        for _ in range(300):
            try:
                engine.connect().close()
                return
            except sa.exc.OperationalError:
                time.sleep(0.1)
        raise TimeoutError("MariaDB does not answer")

    def stop(self) -> None:
        """Stop it as a restart does."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=60)


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])
