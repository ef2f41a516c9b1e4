"""A database as it is, in a new SQLite file, before something in it is repaired."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from batchopt.store.access import is_file, reading, writing
from batchopt.store.database import OPTUNA_PREFIXES, OPTUNA_TABLES, check_storage
from batchopt.store.tables import PREFIX
from batchopt.store.transfer.rows import CHUNK
from batchopt.store.transfer.study_rows import CHECKPOINTS
from batchopt.store.transfer.transfer import copy_pages


def back_up(storage: str, to: str) -> None:
    """Keep a database in a new SQLite file: a file page by page, a server's tables row by row, ids and leases included.

    Files beside a database, or elsewhere, are not copied; no repair removes one that can be used.

    Raises:
        StorageError: it cannot be read, or the file cannot be written.
    """
    check_storage(to, create=True)
    with reading(storage) as source:
        if is_file(storage):
            # So that the read transaction has begun.
            source.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            copy_pages(source, to)
            return
        tables = _tables(source)
        with writing(to) as copy:
            tables.create_all(copy)
            for table in tables.sorted_tables:
                rows = source.execution_options(stream_results=True).execute(sa.select(table)).mappings()
                for some in rows.partitions(1 if table.name == CHECKPOINTS else CHUNK):
                    copy.execute(table.insert(), [dict(row) for row in some])


def _tables(source: sa.Connection) -> sa.MetaData:
    """The tables of studies, Optuna's of whatever version and ours, as any database can have them."""
    names = sa.inspect(source).get_table_names()
    wanted = [name for name in names if name in OPTUNA_TABLES or name.startswith((*OPTUNA_PREFIXES, PREFIX))]
    found = sa.MetaData()
    sa.event.listen(found, "column_reflect", _plain)
    found.reflect(source, only=wanted)
    for table in found.tables.values():
        # On MySQL those of different tables may have one name; conditions are in the server's own words.
        table.indexes.clear()
        table.constraints = {rule for rule in table.constraints if not isinstance(rule, sa.CheckConstraint)}
    return found


def _plain(inspector: Any, table: sa.Table, column: Any) -> None:
    """What only one kind of database knows, and what it gives by itself, is left out; the values are there already."""
    number = isinstance(column["type"], sa.Float | sa.Numeric) and not isinstance(column["type"], sa.Integer)
    # MySQL's doubles would come back as decimals, rounded.
    column["type"] = sa.Double() if number else column["type"].as_generic()
    if isinstance(column["type"], sa.String):
        column["type"].collation = None
    for given in ("default", "identity", "computed"):
        column.pop(given, None)
