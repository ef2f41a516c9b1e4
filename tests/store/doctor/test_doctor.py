"""The doctor: says what is wrong, repairs it after a backup, changes nothing else, and lets what is healthy be."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from batchopt.errors import SchemaMismatch, StorageError, StorageNotFound
from batchopt.report.answer.reading import read_study
from batchopt.store.database import Database, open_database
from batchopt.store.doctor.doctor import examine, repair
from batchopt.store.ledger import Ledger
from batchopt.store.tables import checkpoints_table, epochs_table, leases_table, schema_table
from batchopt.store.transfer.transfer import export
from servers import SERVERS, own_database
from written_study import MACHINE, begin, epoch, new_study

BATCHOPT = [sys.executable, "-c", "from batchopt.cli.batchopt import main; main()"]
NEW_OWNER = "from batchopt.store.owner import new_owner; print(new_owner())"


@pytest.fixture
def storage(written: Path, tmp_path: Path) -> str:
    return str(shutil.copy(written, tmp_path / "studies.db"))


@pytest.fixture
def engine(storage: str) -> sa.Engine:
    return sa.create_engine(f"sqlite:///{storage}", poolclass=sa.NullPool)


def execute(engine: sa.Engine, *statements: sa.Executable | str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement) if isinstance(statement, str) else statement)


def kinds(storage: str) -> list[str]:
    return [finding.kind for finding in examine(storage).findings]


def lease(trial_id: int, owner: str, expires_at: float) -> sa.Executable:
    return leases_table.insert().values(trial_id=trial_id, owner=owner, expires_at=expires_at)


def checkpoint(trial_id: int, content: bytes, sha256: str | None = None) -> sa.Executable:
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return checkpoints_table.insert().values(trial_id=trial_id, epoch=1, sha256=digest, content=content)


def test_a_healthy_database_is_left_alone(storage: str, tmp_path: Path) -> None:
    """An unfinished trial that nobody holds is healthy: the next session takes it up."""
    before = Path(storage).read_bytes()
    examined = repair(storage)
    assert (examined.studies, examined.trials, examined.findings, examined.backup) == (1, 6, [], "")
    assert Path(storage).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["studies.db"]


def test_what_is_wrong_is_explained_and_repaired_after_a_backup(storage: str, engine: sa.Engine) -> None:
    dead = subprocess.run([sys.executable, "-c", NEW_OWNER], capture_output=True, text=True, check=True).stdout.strip()
    execute(
        engine,
        lease(6, dead, expires_at=4e9),
        lease(1, "elsewhere:1:ab", expires_at=4e9),
        checkpoint(6, b"flipped", sha256=hashlib.sha256(b"as it was").hexdigest()),
        checkpoint(2, b"of a trial that has ended"),
        checkpoint(77, b"of nothing"),
        lease(77, "elsewhere:1:ab", expires_at=4e9),
        sa.insert(epochs_table).from_select(
            epochs_table.columns.keys(),
            sa.select(*[sa.literal(78) if c.name == "trial_id" else c for c in epochs_table.c]).limit(1),
        ),
    )
    before = read_study(storage)
    found = {finding.kind: finding for finding in examine(storage).findings}
    assert set(found) == {
        *("abandoned lease", "useless leases", "damaged checkpoint", "useless checkpoints"),
        *("orphaned checkpoints", "orphaned leases", "orphaned epochs"),
    }
    assert "trial 5 of study 'mnist' is still" in found["abandoned lease"].what
    assert "its process has ended" in found["abandoned lease"].what
    assert "the checkpoint of trial 5 of study 'mnist' is not what was written" in found["damaged checkpoint"].what
    after = repair(storage)
    assert after.findings == []
    assert {finding.kind for finding in after.repaired} == set(found)
    assert read_study(storage) == before
    assert set(kinds(after.backup)) == set(found)


def test_the_lease_of_a_machine_that_is_long_silent_is_released(storage: str, engine: sa.Engine) -> None:
    now = datetime.datetime.now(datetime.UTC).timestamp()
    execute(engine, lease(6, "elsewhere:1:ab", expires_at=now - 60))
    assert kinds(storage) == []
    execute(engine, leases_table.update().values(expires_at=now - 7200))
    assert "it expired 2.0 h ago" in examine(storage).findings[0].what
    assert repair(storage).findings == []


def test_a_silent_trial_of_another_program_is_a_zombie_and_one_that_beats_is_not(storage: str) -> None:
    url = f"sqlite:///{storage}"
    plain = optuna.create_study(study_name="plain", storage=url)
    for _ in range(3):
        plain.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    assert kinds(storage) == []
    ids = [trial._trial_id for trial in plain.trials]
    execute(
        engine,
        f"UPDATE trials SET datetime_start = '2020-01-01 00:00:00.000000' WHERE trial_id IN ({ids[0]}, {ids[1]})",
        f"INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES ({ids[1]}, CURRENT_TIMESTAMP)",
    )
    (zombie,) = examine(storage).findings
    assert zombie.kind == "zombie"
    assert "trial 0 of study 'plain' is RUNNING" in zombie.what
    assert "Do not use --fix while that program is running" in zombie.remedy
    assert repair(storage).findings == []
    assert [trial.state.name for trial in plain.get_trials(deepcopy=False)] == ["FAIL", "RUNNING", "RUNNING"]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/Los_Angeles"])
def test_a_trial_that_beats_on_a_server_in_another_time_zone_is_alive(zone: str) -> None:
    with own_database("postgresql") as server:
        engine = sa.create_engine(server, poolclass=sa.NullPool)
        execute(engine, f"ALTER DATABASE {sa.make_url(server).database} SET timezone TO '{zone}'")
        storage = optuna.storages.RDBStorage(server)
        plain = optuna.create_study(study_name="plain", storage=storage)
        for _ in range(2):
            storage.record_heartbeat(plain.ask()._trial_id)
        assert kinds(server) == []
        execute(engine, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '2 hours' WHERE trial_id = 1")
        (zombie,) = examine(server).findings
        assert "trial 0 of study 'plain' is RUNNING" in zombie.what
        assert "nothing for 2.0 h" in zombie.what
        storage.engine.dispose()


def test_files_that_no_row_names_are_found_and_removed_unless_somebody_is_about_to_name_them(
    database: Database, tmp_path: Path
) -> None:
    """Signal 9 between the file and its row leaves one; so does a process of this moment, which lives."""
    path = database.url.removeprefix("sqlite:///")
    ledger = Ledger(database, new_study(database), checkpoint_limit=1)
    for _ in range(2):
        begin(ledger, 64)
    ledger.add_checkpoint(0, 1, b"named")
    ledger.add_checkpoint(1, 1, b"flipped")
    named, flipped = sorted(tmp_path.glob("*-checkpoints/*"), key=lambda file: file.read_bytes(), reverse=True)
    lost = named.with_name("1" * 32 + ".npz")
    lost.write_bytes(b"lost")
    assert kinds(path) == []
    ledger.release()
    flipped.write_bytes(b"Flipped")
    assert kinds(path) == ["damaged checkpoint", "unnamed files"]
    assert repair(path).findings == []
    assert list(named.parent.iterdir()) == [named]
    assert ledger.begin(0)
    assert ledger.checkpoint(0) == (1, b"named")


def test_epochs_that_are_missing_are_named(storage: str, engine: sa.Engine) -> None:
    execute(engine, epochs_table.delete().where(epochs_table.c.trial_id == 2, epochs_table.c.epoch == 2))
    (finding,) = examine(storage).findings
    assert finding.what == "trial 1 of study 'mnist' was trained 2 epochs, and 1 of them are there."
    assert finding.repair is None


def test_tables_of_an_older_optuna_are_brought_up_and_those_of_another_batchopt_refused(
    storage: str, engine: sa.Engine
) -> None:
    before = read_study(storage)
    execute(engine, "UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    assert kinds(storage) == ["older Optuna"]
    after = repair(storage)
    assert after.findings == []
    assert read_study(storage) == before
    execute(engine, "UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    assert kinds(storage) == ["newer Optuna"]
    for other in (1, 99):
        execute(engine, schema_table.update().values(version=other))
        with pytest.raises(SchemaMismatch, match=f"version {other}"):
            examine(storage)


def test_junk_and_damage_are_said_without_a_traceback(storage: str, tmp_path: Path) -> None:
    whole = Path(storage).read_bytes()
    for name, content in {
        "truncated": whole[: len(whole) // 3],
        "overwritten": whole[:40960] + b"\xff" * 16384 + whole[57344:],
    }.items():
        path = tmp_path / f"{name}.db"
        path.write_bytes(content)
        assert kinds(str(path)) == ["damaged file"], name
        assert kinds(str(path)) == [finding.kind for finding in repair(str(path)).findings]
        assert path.read_bytes() == content
    for head in (b"\x07" * 16, whole[:16]):
        (tmp_path / "junk.db").write_bytes(head + b"\x07" * 9000)
        with pytest.raises(StorageError, match="is not an SQLite database, or its beginning is damaged"):
            examine(str(tmp_path / "junk.db"))
    with pytest.raises(StorageError, match="is a folder"):
        examine(str(tmp_path))
    with pytest.raises(StorageNotFound):
        examine(str(tmp_path / "missing.db"))


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mysql", marks=pytest.mark.slow)])
def test_a_servers_database_is_examined_and_repaired_too(
    kind: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with own_database(kind) as server:
        export(storage, server)
        assert kinds(server) == []
        engine = sa.create_engine(server, poolclass=sa.NullPool)
        execute(engine, checkpoint(77, b"of nothing"), lease(78, "elsewhere:1:ab", 4e9), lease(1, "one:1:ab", 4e9))
        found = kinds(server)
        assert found == ["orphaned checkpoints", "orphaned leases", "useless leases"]
        before = read_study(server)
        after = repair(server)
        assert [finding.kind for finding in after.repaired] == found
        assert after.findings == []
        # All that it was, and under the same ids.
        assert Path(after.backup).parent == tmp_path
        assert kinds(after.backup) == found
        assert read_study(after.backup) == before
        with sa.create_engine(f"sqlite:///{after.backup}").connect() as connection:
            assert connection.execute(sa.select(checkpoints_table.c.content)).scalar_one() == b"of nothing"


@pytest.mark.parametrize("kind", SERVERS)
def test_what_deleted_studies_left_on_a_server_is_repaired_where_there_is_no_study(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with own_database(kind) as server:
        open_database(server, create=True).db.dispose()
        execute(sa.create_engine(server, poolclass=sa.NullPool), checkpoint(77, b"of nothing"))
        after = repair(server)
        assert after.findings == []
        assert kinds(after.backup) == ["orphaned checkpoints"]


def test_the_command_says_it_in_words_and_by_its_exit_code(storage: str, engine: sa.Engine) -> None:
    execute(engine, checkpoint(77, b"of nothing"))
    found = subprocess.run([*BATCHOPT, "doctor", "--storage", storage], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (1, "")
    assert "orphaned checkpoints: there are checkpoints of 1 trial" in found.stdout
    assert "with --fix: They are removed." in found.stdout
    fixed = subprocess.run(
        [*BATCHOPT, "doctor", "--storage", storage, "--fix", "--json"], capture_output=True, text=True
    )
    assert fixed.returncode == 0
    assert json.loads(fixed.stdout)["repaired"][0]["kind"] == "orphaned checkpoints"


def test_a_new_trial_does_not_inherit_what_another_program_left_behind(database: Database) -> None:
    """SQLite gives the number of a deleted row again, and Optuna deletes a study without our rows."""
    ledger = Ledger(database, new_study(database, "first"))
    number = begin(ledger, 16)
    for at in (1, 2):
        ledger.add_epoch(number, MACHINE, epoch(at), compile_seconds=0.0, checkpoint=b"state")
    optuna.delete_study(study_name="first", storage=database.storage)
    path = database.url.removeprefix("sqlite:///")
    assert set(kinds(path)) == {"orphaned epochs", "orphaned checkpoints", "orphaned leases"}
    with database.db.begin() as connection:
        connection.execute(leases_table.delete())
    heir = Ledger(database, new_study(database, "second"))
    assert heir.frozen(begin(heir, 64))._trial_id == 1
    assert [trial.epochs for trial in read_study(path, "second")] == [[]]
    assert heir.checkpoint(0) is None


@pytest.mark.parametrize(("deleted", "states"), [(5, ["FAIL"] * 0), (1, ["FAIL"])])
def test_what_a_statement_of_somebodys_own_left_of_a_trial_is_mended(
    storage: str, engine: sa.Engine, deleted: int, states: list[str]
) -> None:
    """The last trial, whose id the next one is given; and one in the middle, whose number would be given twice."""
    execute(engine, f"DELETE FROM trials WHERE number = {deleted}")
    found = kinds(storage)
    assert {"rows of deleted trials"} <= set(found)
    assert ("trial numbers" in found) is bool(states)
    after = repair(storage)
    assert after.findings == []
    study = optuna.load_study(study_name="mnist", storage=f"sqlite:///{storage}")
    numbers = [trial.number for trial in study.trials]
    assert numbers == list(range(6 if states else 5))
    assert [trial.state.name for trial in study.trials if trial.number == deleted] == states
    begun = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    assert begun.number == len(numbers)
