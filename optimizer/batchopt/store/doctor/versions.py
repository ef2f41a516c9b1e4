"""Of which version a database's tables are, and how they are brought to this one."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from optuna.storages import RDBStorage

from batchopt.store.access import writing
from batchopt.store.address import storage_url
from batchopt.store.connecting import BUSY_TIMEOUT_S, engine_options
from batchopt.store.database import open_database, optuna_versions
from batchopt.store.doctor.findings import Finding


def wrong_versions(connection: sa.Connection, storage: str) -> Iterator[Finding]:
    """Optuna's tables of another version than this program's; ours are refused before."""
    versions = optuna_versions(connection)
    if len(versions) != 1:
        yield Finding(
            "no version",
            f"Optuna's tables say that they are of {len(versions)} versions, where they must say one.",
            "Restore a copy." if versions else "Optuna says it, by what it finds in them.",
            None if versions else (lambda: _write_version(storage)),
        )
    else:
        (optunas,) = versions
        memory = RDBStorage("sqlite://")
        known, newest = memory.get_all_versions(), memory.get_head_version()
        memory.engine.dispose()
        if optunas != newest:
            older = optunas in known
            yield Finding(
                "older Optuna" if older else "newer Optuna",
                f"Optuna's tables are of version {optunas}; the Optuna installed here uses {newest}.",
                "They are upgraded by Optuna." if older else "Install the Optuna that wrote them, or a newer one.",
                (lambda: _upgrade_optuna(storage)) if older else None,
            )


def _write_version(storage: str) -> None:
    with writing(storage) as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            connection.execute(sa.delete(sa.table("alembic_version")))
    open_database(storage, create=True).db.dispose()


def _upgrade_optuna(storage: str) -> None:
    url = storage_url(storage)
    options = engine_options(url, busy=BUSY_TIMEOUT_S)
    text = url.render_as_string(hide_password=False)
    optunas = RDBStorage(text, engine_kwargs=options, skip_compatibility_check=True)
    optunas.upgrade()
    optunas.engine.dispose()
