"""Whatever stands in a row: each command answers, or says in one line what is wrong; nothing is written."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from batchopt import Study, Task
from batchopt.errors import DamagedDatabase, InvalidInput
from batchopt.measured import MemoryRow, StepTime
from batchopt.store.access import explained, reading, writing
from batchopt.store.confirmations import ConfirmationRun, Confirmations, plan_of
from batchopt.store.damage import damaged_rows
from batchopt.store.database import open_database
from batchopt.store.doctor.doctor import examine, repair
from batchopt.store.measurements import Measurements, measured_on
from batchopt.store.transfer.transfer import merge
from flipping import COMMANDS, READERS, faults, said, write_logged
from flipping import sweep as swept
from written_study import GOAL, MACHINE, PROGRAM, SPACE, write_study

VALUES = (None, "FYNITE", "{bad json", 2**62, 1e300, -1, '{"name": "NoDistribution"}', "[]")
"""What is put in the place of what was there."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a row in each table."""
    path = tmp_path_factory.mktemp("written") / "studies.db"
    write_study(path)
    database = open_database(str(path), create=True)
    engine = database.db
    measurements, key = Measurements(engine), measured_on(MACHINE, PROGRAM, "fused")  # type: ignore[arg-type]
    measurements.add_step_times(key, [StepTime(size, 1e-4 * size, 1e-6, 0.1, 5) for size in (16, 64, 256)])
    measurements.add_memory(key, None, [MemoryRow(size, 1000 * size, size < 256) for size in (16, 64, 256)])
    best = {"batch_size": 64, "learning_rate": 0.01}
    machine = MACHINE.fingerprint
    run = ConfirmationRun(plan_of(best), "recommended", 0, 6, machine, 64, 0.01, {}, 7, 2, 4.0, 0.9, 0.3, 0.9)
    for number in range(2):
        Confirmations(engine, 1).add(dataclasses.replace(run, run=number))
    state = hashlib.sha256(b"state").hexdigest()
    study = optuna.load_study(study_name="mnist", storage=database.storage)
    study.set_user_attr("memory_limits", {MACHINE.fingerprint: None})
    for statement in (
        f"insert into batchopt_checkpoints values (6, 1, '{state}', x'7374617465', null)",
        "insert into batchopt_leases values (6, 'elsewhere:1:ab', 4e9)",
        "insert into batchopt_turns values (1, 'elsewhere:1:ab', 4e9)",
        "insert into trial_heartbeats values (1, 6, '2026-01-01 00:00:00')",
    ):
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        # One file, so that copies are whole.
        connection.execute("pragma journal_mode = delete")
    return path


def columns(path: Path) -> list[tuple[str, int, str]]:
    """Each column of each kind of row: a table has one kind, that of attributes and of trials one for each key."""
    found = []
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            names = [row[1] for row in connection.execute(f"pragma table_info({table})")]
            kind = next((name for name in ("key", "param_name", "state", "value_type") if name in names), "null")
            for (rowid,) in connection.execute(f"select min(rowid) from {table} group by {kind}").fetchall():
                found += [(table, rowid, name) for name in names]
    return found


def changed(written: Path, folder: Path, change: tuple[str, int, str], value: Any) -> Path | None:
    """A copy with one value changed; None where SQLite itself does not take it."""
    table, rowid, column = change
    path = folder / "studies.db"
    shutil.copy(written, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        # As if it had been written by a program, or a disk, that knows of no rules.
        connection.execute("pragma ignore_check_constraints = on")
        connection.execute("pragma writable_schema = on")
        connection.execute("update sqlite_master set sql = replace(sql, 'NOT NULL', '') where name = ?", (table,))
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"update {table} set {column} = ? where rowid = ?", (value, rowid))
    except sqlite3.Error:
        return None
    return path


def all_changes(written: Path) -> list[tuple[tuple[str, int, str], Any]]:
    return list(itertools.product(columns(written), VALUES))


def sweep(written: Path, folder: Path, changes: Any, commands: Any) -> list[str]:
    found = []
    for change, value in changes:
        path = changed(written, folder, change, value)
        if path is not None:
            found += [f"{change} = {value!r}: {fault}" for fault in faults(path, commands)]
    return found


def test_a_row_that_was_changed_is_one_line_in_every_command(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample; the next test changes all of them."""
    monkeypatch.chdir(tmp_path)
    some = random.Random(0).sample(all_changes(written), 4)
    assert sweep(written, tmp_path, some, [["report"], ["doctor"]]) == []


OUT_OF_RANGE = (
    ("trial_values", "objective", 2**62),
    ("batchopt_epochs", "epoch", 2**62),
    ("batchopt_epochs", "sq_norm_small", -1),
    ("batchopt_step_times", "batch_size", -1),
    ("batchopt_step_times", "step_time_s", -1),
    ("batchopt_confirmations", "batch_size", -1),
    ("batchopt_epochs", "joules", -1.0),
    ("batchopt_machines", "description", json.dumps(MACHINE.describe() | {"max_power_w": "much"})),
    ("batchopt_machines", "description", json.dumps(MACHINE.describe() | {"no_energy": ["why"]})),
)
"""Numbers that their columns can hold, and no study has: each was a traceback of some command."""


def test_a_number_that_no_study_has_is_one_line_and_the_doctor_names_it(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for table, column, value in OUT_OF_RANGE:
        assert sweep(written, tmp_path, [((table, 1, column), value)], [["list"], ["report", "--json"]]) == []
        path = changed(written, tmp_path, (table, 1, column), value)
        assert path is not None
        found = [finding.what for finding in examine(str(path)).findings if finding.kind == "damaged row"]
        assert any(table in what and column in what for what in found), (table, column, found)


def test_a_trial_that_has_lost_its_learning_rate_is_left_out(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lost = ("trial_params", 2, "param_name"), "another"
    assert sweep(written, tmp_path, [lost], [["report", "--html", "page.html"], ["a session"]]) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_any_value_in_any_column_is_one_line(
    command: list[str], written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep(written, tmp_path, all_changes(written), [command]) == []


def test_the_row_is_named_and_the_doctor_names_all_and_removes_what_comes_back_by_itself(
    written: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(written, tmp_path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update trial_intermediate_values set intermediate_value_type = 'FYNITE' where trial_id = 2")
        connection.execute("update batchopt_step_times set step_time_s = 'soon' where batch_size = 64")
    with pytest.raises(DamagedDatabase) as refusal:
        Study(Task(len, len), SPACE, GOAL, name="mnist", storage=path).report()
    assert "in table trial_intermediate_values is damaged: its intermediate_value_type is 'FYNITE'" in str(
        refusal.value
    )
    assert "\n" not in str(refusal.value)
    found = [finding for finding in examine(str(path)).findings if finding.kind == "damaged row"]
    assert ["FYNITE" in finding.what for finding in found] == [True, True, False]
    assert [finding.repair is not None for finding in found] == [False, False, True]
    repaired = repair(str(path))
    assert "'soon', and not a number" in " ".join(finding.what for finding in repaired.repaired)
    assert sum(finding.kind == "damaged row" for finding in repaired.findings) == 2


def test_a_study_that_is_whole_has_no_damaged_row_on_any_server(server_storage: str, written: Path) -> None:
    merge([str(written)], server_storage)
    with reading(server_storage) as connection:
        assert [str(row) for row in damaged_rows(connection)] == []
        statement = "update trial_user_attributes set value_json = '{bad json' where \"key\" = 'guid' and trial_id = 1"
    with writing(server_storage) as connection:
        quoted = statement if connection.dialect.name == "postgresql" else statement.replace('"', "`")
        connection.execute(sa.text(quoted))
    assert "value_json is '{bad json', and not JSON" in said(["trials"], server_storage)


def test_an_error_of_our_own_is_not_blamed_on_a_database_that_is_whole(written: Path, tmp_path: Path) -> None:
    for error in (KeyError("x"), InvalidInput("x"), ZeroDivisionError()):
        with pytest.raises(type(error)) as raised, explained(str(shutil.copy(written, tmp_path))):
            raise error
        assert raised.value is error


@pytest.mark.parametrize("statement", ["drop table alembic_version", "update alembic_version set version_num = null"])
def test_what_only_reads_does_not_write_the_version_that_optunas_tables_lack(
    statement: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = changed(written, tmp_path, ("alembic_version", 1, "version_num"), "x")
    assert path is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    before = path.read_bytes()
    assert "does not say of which one version Optuna's tables are" in said(["list"], path)
    assert "no version" in [finding.kind for finding in examine(str(path)).findings]
    assert path.read_bytes() == before
    assert "no version" not in [finding.kind for finding in repair(str(path)).findings]
    assert said(["list"], path) == ""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose last writes are in SQLite's log."""
    path = tmp_path_factory.mktemp("logged") / "studies.db"
    write_logged(path)
    return path


@pytest.mark.parametrize(
    ("seeds", "commands"),
    [(range(4), READERS), pytest.param(range(100, 300), COMMANDS, marks=pytest.mark.slow)],
    ids=["few", "200"],
)
def test_a_file_that_was_flipped_or_cut_is_one_line_and_stays_as_it_is(
    seeds: range, commands: Any, written: Path, logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python tests/flipping.py` damages two thousand."""
    work, here = tmp_path / "work", tmp_path / "here"
    work.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    assert swept([written, logged], work, seeds, commands) == []
