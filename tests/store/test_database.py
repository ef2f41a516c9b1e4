"""Opening a study database: every refusal says what is wrong, and changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from batchopt.errors import SchemaMismatch, StorageError, StorageNotFound
from batchopt.store.address import shown, storage_url
from batchopt.store.connecting import BUSY_TIMEOUT_S
from batchopt.store.database import Database, check_storage, open_database
from batchopt.store.making import found_or_made
from batchopt.store.tables import SCHEMA_VERSION, metadata


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(storage: Path, *, create: bool, kind: type[StorageError] = StorageError) -> str:
    """Ask for a database that cannot be had; returns what is said, once for looking and once for opening."""
    before = contents(storage.parent) if storage.parent.is_dir() else {}
    said = []
    for ask in (check_storage, open_database):
        with pytest.raises(kind) as refusal:
            ask(str(storage), create=create)
        said.append(str(refusal.value))
    assert said[0] == said[1]
    assert storage.name in said[0]
    assert "\n" not in said[0]
    assert (contents(storage.parent) if storage.parent.is_dir() else {}) == before
    return said[0]


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    connection.close()
    return names


def test_a_path_is_an_sqlite_file_and_a_url_is_itself() -> None:
    assert shown(storage_url("a folder/studies.db")) == "sqlite:///a folder/studies.db"
    assert shown(storage_url("sqlite:////data/studies.db")) == "sqlite:////data/studies.db"


def test_a_missing_database_is_made_where_that_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    open_database(str(path), create=True).db.dispose()
    assert set(metadata.tables) | {"studies", "trials", "version_info"} <= tables(path)


def test_a_missing_database_is_not_made_where_it_is_only_read(tmp_path: Path) -> None:
    assert "does not exist. Check --storage" in refused(tmp_path / "missing.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_missing_database_does_not_make_it(tmp_path: Path) -> None:
    check_storage(str(tmp_path / "missing.db"), create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    said = refused(tmp_path / "no" / "studies.db", create=True)
    assert f"the folder {tmp_path / 'no'} does not exist. Make it first." in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_is_refused_with_the_path_of_a_file(tmp_path: Path, create: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    said = refused(folder, create=create)
    assert f"is a folder. Give the path of a file, for example {folder / 'studies.db'}" in said


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("content", [b"not a database\n", b"SQLite format 2\x00", b"\x00", b"SQLite"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes, create: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert "is not an SQLite database" in refused(path, create=create)


@pytest.mark.parametrize("create", [True, False])
def test_a_database_whose_beginning_is_damaged_is_refused(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "studies.db"
    path.write_bytes(b"SQLite format 3\x00" + b"junk" * 2000)
    assert "or its beginning is damaged. Choose another --storage, or restore a copy." in refused(path, create=create)


@pytest.mark.parametrize("create", [True, False])
def test_a_pipe_a_socket_and_a_device_are_refused_at_once(tmp_path: Path, create: bool) -> None:
    """To open a pipe for reading would wait for ever for who writes to it."""
    pipe, listening = tmp_path / "pipe.db", tmp_path / "socket.db"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        assert "is a pipe. Give the path of a file." in refused(pipe, create=create)
        assert "is a socket. Give the path of a file." in refused(listening, create=create)
    with pytest.raises(StorageError, match=r"/dev/null is a device\. Give the path of a file\."):
        check_storage("/dev/null", create=create)


@pytest.mark.parametrize("create", [True, False])
def test_a_truncated_database_is_refused(tmp_path: Path, empty_database: Path, create: bool) -> None:
    path = tmp_path / "studies.db"
    path.write_bytes(empty_database.read_bytes()[:5000])
    assert "malformed" in refused(path, create=create)


def test_an_empty_file_is_refused_for_reading_and_filled_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    path.touch()
    assert "is empty. Check --storage" in refused(path, create=False)
    open_database(str(path), create=True).db.dispose()
    assert set(metadata.tables) <= tables(path)


def test_the_tables_of_another_program_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(path, "create table invoices (id integer)")
    assert "holds other tables (invoices) and no study. Choose another --storage." in refused(path, create=True)
    assert "holds no study. Check --storage." in refused(path, create=False)
    assert tables(path) == {"invoices"}


def test_a_table_of_another_program_that_is_named_as_optunas_is_no_study(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(path, "create table version_info (program text)")
    refused(path, create=True)
    assert tables(path) == {"version_info"}


@pytest.mark.parametrize("create", [True, False])
def test_tables_of_another_schema_version_are_refused_with_both_versions(
    tmp_path: Path, database: Database, create: bool
) -> None:
    database.db.dispose()
    path = tmp_path / "studies.db"
    execute(path, "update batchopt_schema set version = 99")
    said = refused(path, create=create, kind=SchemaMismatch)
    assert f"tables of version 99; this batchopt reads version {SCHEMA_VERSION}." in said
    assert "or another --storage" in said


@pytest.mark.parametrize("create", [True, False])
def test_optuna_tables_of_another_version_are_refused(tmp_path: Path, database: Database, create: bool) -> None:
    database.db.dispose()
    path = tmp_path / "studies.db"
    execute(path, "update version_info set schema_version = 99", "update alembic_version set version_num = 'v99.0.0'")
    with pytest.raises(SchemaMismatch, match=r"studies\.db.*optuna"):
        open_database(str(path), create=create)


def test_a_plain_optuna_database_is_refused_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="plain")
    assert "is an Optuna database without a batchopt study" in refused(path, create=False)


def test_a_plain_optuna_database_takes_our_tables_beside_its_own_and_keeps_its_studies(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="plain").add_trial(optuna.create_trial(value=1.0))
    open_database(str(path), create=True).db.dispose()
    assert set(metadata.tables) <= tables(path)
    assert optuna.load_study(storage=f"sqlite:///{path}", study_name="plain").best_value == 1.0


def test_opening_twice_changes_nothing(tmp_path: Path, database: Database) -> None:
    database.db.dispose()
    before = contents(tmp_path)
    open_database(database.url, create=True).db.dispose()
    open_database(database.url, create=False).db.dispose()
    assert contents(tmp_path) == before


def test_readers_and_the_writer_do_not_block_each_other(database: Database) -> None:
    """Write-ahead logging, and a long wait for another writer, on every connection of the pool."""
    with database.db.connect() as one, database.db.connect() as other:
        for connection in (one, other):
            assert connection.execute(sa.text("pragma journal_mode")).scalar() == "wal"
            assert connection.execute(sa.text("pragma busy_timeout")).scalar() == BUSY_TIMEOUT_S * 1000


@pytest.mark.parametrize("storage", ["", ":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_study_is_kept_in_a_file_and_not_in_memory(storage: str) -> None:
    with pytest.raises(StorageError, match="a study is kept in a file; give its path"):
        open_database(storage, create=True)


@pytest.mark.parametrize("storage", ["://", "no such scheme://host/database", "http://host:port/database"])
def test_what_is_neither_path_nor_url_is_refused_with_an_example(storage: str) -> None:
    with pytest.raises(StorageError, match=r"such as sqlite:///studies\.db"):
        check_storage(storage, create=True)


@pytest.mark.parametrize("name", ["oracle9", "sqlite+nosuchdriver"])
def test_a_kind_of_database_that_is_not_known_is_refused_by_name(name: str) -> None:
    with pytest.raises(StorageError, match=f"--storage {re.escape(name)}:///studies.db: .*{re.escape(name)}"):
        check_storage(f"{name}:///studies.db", create=True)


def test_a_database_system_whose_package_is_missing_is_refused_with_the_packages_name() -> None:
    """The driver for Oracle has had another name for years, so it is missing here."""
    with pytest.raises(StorageError, match="needs the Python package cx_Oracle; install it first"):
        check_storage("oracle+cx_oracle://user:secret@localhost/studies", create=True)


def test_a_password_is_not_shown() -> None:
    url = storage_url("postgresql://user:secret@localhost:5432/studies")
    assert shown(url) == "postgresql://user:***@localhost:5432/studies"


@pytest.mark.parametrize(
    "storage", ["postgresql://user:secret@host:port/studies", "postgresql+nosuchdriver://user:secret@localhost/studies"]
)
def test_a_password_is_not_shown_by_a_refusal(storage: str) -> None:
    with pytest.raises(StorageError) as refusal:
        open_database(storage, create=True)
    assert "secret" not in str(refusal.value)


def test_a_path_may_hold_braces_and_spaces(tmp_path: Path) -> None:
    """Optuna formats its URL, so braces are not safe by themselves."""
    path = tmp_path / "a {strange} name%20.db"
    open_database(str(path), create=True).db.dispose()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


ODD = [
    ("x" * 300, "File name too long"),
    ("x/" * 2100 + "s.db", "File name too long"),
    ("loop", "Too many levels of symbolic links"),
    ("pipe", "is a pipe"),
    ("sqlite:///a%00b", "not a path and not a database URL"),
    ("a\0b", "not a path and not a database URL"),
    ("sqlite:///good.db?nosuch=1", "nosuch"),
    ("sqlite+aiosqlite:///new.db", "sqlite+aiosqlite is not used here"),
    ("sqlite+pysqlcipher://:geheim@/new.db", "is not encrypted"),
    ("postgresql+psycopg:/u:geheim@h", "psycopg:/u:***@h: not a path"),
    ("sqlite:/new.db", "not a path and not a database URL"),
    ("u:geheim@h/new.db", "u:***@h/new.db: not a path"),
    ("mysql+pymysql://u:p@geheim@h/d", "mysql+pymysql://u:***@h/d: write the @ in a password as %40"),
    ("mysql+pymysql://root@127.0.0.1:3306/test?nosuch=1", "nosuch"),
    ("postgresql+psycopg://postgres@127.0.0.1:5432/test?nosuch=1", "nosuch"),
    ("postgresql+psycopg://postgres@127.0.0.1:99999/test", "database postgresql+psycopg://postgres@127.0.0.1:99999"),
    (3, "give a path"),
]


@pytest.mark.parametrize(("storage", "wrong"), ODD, ids=[str(storage)[:40] for storage, _ in ODD])
def test_an_odd_place_is_one_line_without_its_password_and_makes_no_file(
    storage: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, "good.db")
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    before = sorted(os.listdir())
    for create in (True, False):
        for ask in (check_storage, open_database):
            with pytest.raises(StorageError) as refusal:
                ask(storage, create=create)
            assert wrong in str(refusal.value)
            assert "\n" not in str(refusal.value) and "geheim" not in str(refusal.value)
    assert sorted(os.listdir()) == before


def test_tables_that_another_process_is_making_hold_no_study_yet(tmp_path: Path, empty_database: Path) -> None:
    """Optuna writes their version last of all, and a study after that."""
    path = Path(shutil.copy(empty_database, tmp_path))
    execute(path, "delete from alembic_version")
    with pytest.raises(StorageNotFound, match="holds no study"):
        open_database(str(path), create=False)


def test_opening_a_database_leaves_what_optuna_says_of_other_studies_as_it_is(database: Database) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        found_or_made(database, "quiet")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
