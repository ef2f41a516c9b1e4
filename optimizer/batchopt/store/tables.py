"""The tables beside Optuna's, all under the prefix `batchopt_`. Each table and column is spelled here only.

At the end, as far as statements of ours name them, Optuna's.
"""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    column,
    table,
)
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from batchopt.optuna_private import OPTUNAS_TABLES

PREFIX = "batchopt_"

SCHEMA_VERSION = 4
"""Another one is refused: 4 keeps values of any metric, and no version before it was released."""

metadata = MetaData()

schema_table = Table(
    "batchopt_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

machines_table = Table(
    "batchopt_machines",
    metadata,
    Column("fingerprint", String(64), primary_key=True),
    Column("description", JSON, nullable=False),
)

epochs_table = Table(
    "batchopt_epochs",
    metadata,
    Column("trial_id", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("machine", String(64), nullable=False),
    Column("train_loss", Float(53)),
    Column("train_value", Float(53)),
    Column("validation_loss", Float(53)),
    Column("value", Float(53)),
    Column("train_seconds", Float(53), nullable=False),
    Column("evaluation_seconds", Float(53), nullable=False),
    Column("compile_seconds", Float(53), nullable=False),
    Column("steps", Integer, nullable=False),
    Column("examples_per_second", Float(53), nullable=False),
    Column("peak_bytes", BigInteger),
    Column("joules", Float(53)),
    Column("side_by_side", Boolean, nullable=False),
    Column("noise_small", Integer),
    Column("noise_big", Integer),
    Column("sq_norm_small", Float(53)),
    Column("sq_norm_big", Float(53)),
    Column("noise_seconds", Float(53)),
    Column("raw_loss", Float(53)),
    Column("raw_value", Float(53)),
)

step_times_table = Table(
    "batchopt_step_times",
    metadata,
    Column("machine", String(64), primary_key=True),
    Column("program", String(64), primary_key=True),
    Column("engine", String(16), primary_key=True),
    Column("batch_size", BigInteger, primary_key=True, autoincrement=False),
    Column("step_time_s", Float(53), nullable=False),
    Column("spread_s", Float(53), nullable=False),
    Column("epoch_overhead_s", Float(53), nullable=False),
    Column("count", Integer, nullable=False),
)

memory_table = Table(
    "batchopt_memory",
    metadata,
    Column("machine", String(64), primary_key=True),
    Column("program", String(64), primary_key=True),
    Column("engine", String(16), primary_key=True),
    # 0 where no limit was asked for.
    Column("memory_limit", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_size", BigInteger, primary_key=True, autoincrement=False),
    Column("step_bytes", BigInteger),
    Column("fits", Boolean),
)

leases_table = Table(
    "batchopt_leases",
    metadata,
    Column("trial_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("expires_at", Float(53), nullable=False),
)

turns_table = Table(
    "batchopt_turns",
    metadata,
    Column("study_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("expires_at", Float(53), nullable=False),
)

checkpoints_table = Table(
    "batchopt_checkpoints",
    metadata,
    Column("trial_id", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("content", LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb"), nullable=False),
    # The file that holds the content where it is too large for the database; content is empty then.
    Column("location", String(1024)),
)

confirmations_table = Table(
    "batchopt_confirmations",
    metadata,
    Column("study_id", BigInteger, primary_key=True, autoincrement=False),
    # The recommendation that was to be confirmed, and what a configuration was to it.
    Column("plan", String(64), primary_key=True),
    Column("role", String(16), primary_key=True),
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("trials", Integer, nullable=False),
    Column("machine", String(64), nullable=False),
    Column("batch_size", BigInteger, nullable=False),
    Column("learning_rate", Float(53), nullable=False),
    Column("extra", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("train_seconds", Float(53), nullable=False),
    # NULL where training diverged.
    Column("validation_value", Float(53)),
    Column("test_loss", Float(53)),
    Column("test_value", Float(53)),
)

tokens_table = Table(
    "batchopt_tokens",
    metadata,
    # SHA-256 of the token, which nobody can turn back: a token is as long as it is.
    Column("sha256", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    # The study that it is for; NULL for one that may do all.
    Column("study", String(512)),
    Column("made_at", Float(53), nullable=False),
)


optunas_studies = table("studies", column("study_id"), column("study_name"))

optunas_study_attributes = table("study_user_attributes", column("study_id"), column("key"), column("value_json"))

optunas_study_system_attributes = table("study_system_attributes", column("study_id"), column("key"))

optunas_trials = table(
    "trials",
    column("trial_id"),
    column("study_id"),
    column("number"),
    column("state", Enum(TrialState)),
    column("datetime_complete", DateTime()),
)

optunas_user_attributes = table("trial_user_attributes", column("trial_id"), column("key"), column("value_json"))

optunas_system_attributes = table("trial_system_attributes", column("trial_id"), column("key"), column("value_json"))

optunas_values = OPTUNAS_TABLES["trial_intermediate_values"]

optunas_objectives = OPTUNAS_TABLES["trial_values"]

optunas_children = (
    optunas_user_attributes,
    optunas_system_attributes,
    table("trial_params", column("trial_id")),
    optunas_values,
)
"""Where an unfinished trial has rows."""


class database_clock(FunctionElement[float]):  # noqa: N801  a function in SQL
    """Seconds since 1970 by the database's own clock: the one clock that all machines of a study share."""

    type = Float(53)
    inherit_cache = True


@compiles(database_clock, "sqlite")
def _sqlite_clock(element: database_clock, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_clock, "postgresql")
def _postgresql_clock(element: database_clock, compiler: SQLCompiler, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(database_clock, "mysql")
@compiles(database_clock, "mariadb")
def _mysql_clock(element: database_clock, compiler: SQLCompiler, **options: Any) -> str:
    return "cast(unix_timestamp(sysdate(6)) as double)"
