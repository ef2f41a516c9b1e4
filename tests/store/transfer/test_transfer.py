"""Export and merge: whole, verified, nothing twice, inputs untouched; through real servers and back."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from batchopt import Goal
from batchopt.errors import InvalidInput, StorageError, StudyMismatch, StudyNotFound
from batchopt.measured import StepTime
from batchopt.report.answer.reading import read_study
from batchopt.report.show.study_report import read_report
from batchopt.store.access import reading
from batchopt.store.database import Database, open_database
from batchopt.store.doctor.doctor import examine
from batchopt.store.ledger import Ledger
from batchopt.store.measurements import Measurements, measured_on
from batchopt.store.stamp import Stamp
from batchopt.store.tables import leases_table
from batchopt.store.transfer.rows import NOT_COPIED, Rows
from batchopt.store.transfer.study_rows import OF_STUDY, OF_TRIAL
from batchopt.store.transfer.transfer import export, merge
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note
from servers import SERVERS, own_database
from written_study import MACHINE, STAMP, begin, epoch, new_study, write_study

STEP_TIME = StepTime(16, 1e-4, 1e-6, 0.01, 9)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six trials, of which the last is running, with a checkpoint, a lease, a step time and a note."""
    path = tmp_path_factory.mktemp("written") / "studies.db"
    write_study(path)
    with ledger_of(path) as ledger:
        # Taken up as another process would do it, and not released.
        assert ledger.begin(5)
        ledger.add_checkpoint(5, 1, b"state after one epoch")
        save_note(optuna.trial.Trial(ledger.study, ledger.frozen(5)._trial_id), "look at *this* one")
        key = measured_on(MACHINE, STAMP.program, "fused")
        Measurements(ledger.db).add_step_times(key, [STEP_TIME])
    return path


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path / "a.db"))


class ledger_of:  # noqa: N801  used as a function
    """The ledger of a study in a file, closed at the end."""

    def __init__(self, path: Path, name: str = "mnist") -> None:
        self._path, self._name = path, name

    def __enter__(self) -> Ledger:
        self._database = open_database(str(self._path), create=False)
        study = optuna.load_study(study_name=self._name, storage=self._database.storage)
        return Ledger(self._database, study)

    def __exit__(self, *error: object) -> None:
        self._database.db.dispose()


def train(path: Path, batch_size: int, accuracies: list[float]) -> int:
    """A new trial, trained to the end; returns its number."""
    with ledger_of(path) as ledger:
        number = begin(ledger, batch_size)
        go_on(ledger, number, accuracies)
    return number


def go_on(ledger: Ledger, number: int, accuracies: list[float], first: int = 1) -> None:
    for at, accuracy in enumerate(accuracies, start=first):
        ledger.add_epoch(number, MACHINE, epoch(at, accuracy), compile_seconds=0.0)
    ledger.complete(number, accuracies[-1])


def go_on_with_the_running_one(path: Path, accuracy: float) -> None:
    with ledger_of(path) as ledger:
        free_all(ledger)
        assert ledger.begin(5)
        go_on(ledger, 5, [accuracy], first=2)


def free_all(ledger: Ledger) -> None:
    with ledger.db.begin() as connection:
        connection.execute(leases_table.delete())


def report_of(storage: object) -> dict[str, Any]:
    """All that is said of a study, but where it is."""
    report = read_report(str(storage)).describe()
    del report["storage"]
    return report


def trials_of(storage: object) -> list[dict[str, Any]]:
    return [trial.describe() for trial in read_study(str(storage))]


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def state_of(storage: object) -> tuple[list[Any], list[Any], list[Any]]:
    """Checkpoints, leases and step times of a database."""
    with reading(str(storage)) as connection:
        tables = [sa.table(name) for name in ("batchopt_checkpoints", "batchopt_leases", "batchopt_step_times")]
        rows = [connection.execute(sa.select(sa.text("*")).select_from(table)).mappings().all() for table in tables]
        return rows[0], rows[1], rows[2]


@pytest.mark.parametrize("study", [None, "mnist"], ids=["file", "rows"])
def test_an_exported_study_is_the_study_its_running_trial_and_checkpoint_included(
    source: Path, tmp_path: Path, study: str | None
) -> None:
    before = content(source)
    done = export(str(source), str(tmp_path / "b.db"), study)
    assert [row | {"sha256": ""} for row in done.studies] == [
        {"name": "mnist", "trials": 6, "epochs": 7, "checkpoints": 1, "added": 6, "continued": 0, "known": 0}
        | {"conflicts": [], "left": [], "sha256": ""}
    ]
    assert trials_of(tmp_path / "b.db") == trials_of(source)
    assert report_of(tmp_path / "b.db") == report_of(source)
    checkpoints, leases, step_times = state_of(tmp_path / "b.db")
    assert [row["content"] for row in checkpoints] == [b"state after one epoch"]
    assert leases == []
    assert [row["step_time_s"] for row in step_times] == [STEP_TIME.step_time_s]
    assert content(source) == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.db", "b.db"}


@pytest.mark.parametrize("study", [None, "mnist"], ids=["file", "rows"])
def test_a_checkpoint_that_lies_in_a_file_travels_with_its_study(
    source: Path, tmp_path: Path, study: str | None
) -> None:
    """Unless its file is lost: then the trial starts over where it is copied to."""
    with sqlite3.connect(source) as connection:
        (content,) = connection.execute("SELECT content FROM batchopt_checkpoints").fetchone()
        file = tmp_path / "a.db-checkpoints" / ("0" * 32 + ".npz")
        file.parent.mkdir()
        file.write_bytes(content)
        connection.execute("UPDATE batchopt_checkpoints SET content = x'', location = ?", [file.name])
    connection.close()
    export(str(source), str(tmp_path / "b.db"), study)
    file.unlink()
    with ledger_of(tmp_path / "b.db") as ledger:
        assert ledger.begin(5)
        assert ledger.checkpoint(5) == (1, b"state after one epoch")
    (done,) = export(str(source), str(tmp_path / "c.db"), study).studies
    assert (done["checkpoints"], len(done["left"])) == (0, 1)
    assert [finding.kind for finding in examine(str(source)).findings] == ["damaged checkpoint"]
    assert examine(str(tmp_path / "c.db")).findings == []


def test_what_is_exported_goes_on(source: Path, tmp_path: Path) -> None:
    export(str(source), str(tmp_path / "b.db"))
    with ledger_of(tmp_path / "b.db") as ledger:
        assert ledger.begin(5)
        assert ledger.checkpoint(5) == (1, b"state after one epoch")
        go_on(ledger, 5, [0.75], first=2)
        assert begin(ledger, 64) == 6


def test_a_note_on_a_trial_finds_its_trial_again(source: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "b.db", "other")
    merge([str(source)], str(tmp_path / "b.db"))
    with ledger_of(tmp_path / "b.db") as ledger:
        trial = ledger.frozen(5)
        assert trial._trial_id != 6
        assert get_note(optuna.trial.Trial(ledger.study, trial._trial_id)) == "look at *this* one"


@pytest.mark.parametrize("kind", SERVERS)
def test_a_study_is_the_same_after_a_server_and_back(kind: str, source: Path, tmp_path: Path) -> None:
    with own_database(kind) as server:
        there = export(str(source), server)
        assert report_of(server) == report_of(source)
        back = export(server, str(tmp_path / "back.db"))
        assert there.studies == back.studies
        again = merge([str(source), str(tmp_path / "back.db")], server)
        assert [again.studies[0][name] for name in ("added", "continued", "known")] == [0, 0, 12]
        with pytest.raises(StorageError, match="holds a study 'mnist' already"):
            export(str(source), server)
    assert report_of(tmp_path / "back.db") == report_of(source)
    assert trials_of(tmp_path / "back.db") == trials_of(source)
    assert train(tmp_path / "back.db", 64, [0.5, 0.75]) == 6


def test_studies_that_went_on_apart_are_joined_and_joining_again_changes_nothing(source: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(source, tmp_path / "b.db"))
    train(source, 64, [0.5, 0.75])
    train(other, 256, [0.5, 0.9375])
    train(other, 16, [0.25, 0.5])
    go_on_with_the_running_one(other, 0.96875)
    before = content(source), content(other)
    joined = merge([str(source), str(other)], str(tmp_path / "c.db")).studies[0]
    assert [joined[name] for name in ("trials", "added", "continued", "conflicts")] == [9, 9, 1, []]
    trials = trials_of(tmp_path / "c.db")
    assert [trial["trial"] for trial in trials] == list(range(9))
    assert trials[:5] == trials_of(source)[:5]
    assert trials[5] == trials_of(other)[5]
    assert trials[6] == trials_of(source)[6]
    assert [trial["batch_size"] for trial in trials[7:]] == [256, 16]
    rows = report_of(tmp_path / "c.db")["by_batch_size"]
    assert max(row["value"] for row in rows) == 0.96875
    again = merge([str(other), str(source)], str(tmp_path / "c.db")).studies[0]
    assert [again[name] for name in ("added", "continued", "sha256")] == [0, 0, joined["sha256"]]
    other_way = merge([str(other), str(source)], str(tmp_path / "d.db")).studies[0]
    assert other_way["sha256"] == joined["sha256"]
    assert (content(source), content(other)) == before


def test_a_trial_that_was_trained_on_in_two_places_is_named(source: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(source, tmp_path / "b.db"))
    go_on_with_the_running_one(source, 0.75)
    go_on_with_the_running_one(other, 0.875)
    joined = merge([str(source), str(other)], str(tmp_path / "c.db")).studies[0]
    assert len(joined["conflicts"]) == 1
    assert "trial 5 of study 'mnist'" in joined["conflicts"][0]
    assert "complete after 2 epochs here, complete after 2 epochs in" in joined["conflicts"][0]
    assert "b.db" in joined["conflicts"][0]
    assert trials_of(tmp_path / "c.db")[5] == trials_of(source)[5]


def test_a_queued_configuration_is_trained_once(source: Path, tmp_path: Path) -> None:
    with ledger_of(source) as ledger:
        ledger.study.enqueue_trial({"batch_size": 64, "learning_rate": 0.05})
    other = Path(shutil.copy(source, tmp_path / "b.db"))
    with ledger_of(other) as ledger:
        number = ledger.study.ask(STAMP.space.distributions()).number
        ledger.begin(number)
        go_on(ledger, number, [0.5, 0.75])
    for name, inputs in {"c.db": [source, other], "d.db": [other, source]}.items():
        joined = merge([str(path) for path in inputs], str(tmp_path / name)).studies[0]
        assert joined["trials"] == 7
        assert trials_of(tmp_path / name)[6]["state"] == "complete"


def test_studies_of_different_questions_are_not_joined(source: Path, tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "b.db"), create=True)
    study = optuna.create_study(study_name="mnist", storage=database.storage, direction="maximize")
    Stamp(STAMP.space, Goal(epochs=7), STAMP.program, seed=3, search="tpe").write(study)
    database.db.dispose()
    with pytest.raises(StudyMismatch, match="another goal than its namesake: epochs 7 and 2"):
        merge([str(source), str(tmp_path / "b.db")], str(tmp_path / "c.db"))
    assert not (tmp_path / "c.db").exists()


def test_studies_of_other_names_live_beside_each_other(source: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "b.db", "other")
    done = merge([str(source), str(tmp_path / "b.db")], str(tmp_path / "c.db"))
    assert [study["name"] for study in done.studies] == ["mnist", "other"]
    one = export(str(tmp_path / "c.db"), str(tmp_path / "d.db"), "other")
    assert [study["name"] for study in one.studies] == ["other"]
    assert len(trials_of(tmp_path / "d.db")) == 6


def test_a_plain_optuna_study_travels_too(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/plain.db"
    study = optuna.create_study(study_name="plain", storage=storage, directions=["minimize", "maximize"])
    for number in range(3):
        study.add_trial(
            optuna.create_trial(
                params={"x": number / 3},
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
                values=[float("inf") if number == 2 else number, -number],
                user_attrs={"about": {"nested": [1, None, "é"]}},
            )
        )
    optuna.storages.RDBStorage(storage).engine.dispose()
    merge([storage], str(tmp_path / "c.db"))
    copied = optuna.load_study(study_name="plain", storage=f"sqlite:///{tmp_path}/c.db")
    assert copied.directions == study.directions
    for one, other in zip(study.trials, copied.trials, strict=True):
        assert (one.values, one.params, one.distributions) == (other.values, other.params, other.distributions)
        assert (one.datetime_start, one.datetime_complete) == (other.datetime_start, other.datetime_complete)
        assert other.user_attrs["about"] == one.user_attrs["about"]


def test_a_study_is_exported_while_it_is_written(source: Path, tmp_path: Path) -> None:
    with ledger_of(source) as ledger:
        number = begin(ledger, 64)
        export(str(source), str(tmp_path / "b.db"))
        go_on(ledger, number, [0.5, 0.75])
        export(str(source), str(tmp_path / "c.db"), "mnist")
    assert trials_of(tmp_path / "b.db")[number]["state"] == "running"
    assert trials_of(tmp_path / "c.db")[number]["state"] == "complete"


def test_what_a_killed_writer_left_beside_the_file_is_read_and_stays(source: Path, tmp_path: Path) -> None:
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute(\"INSERT INTO studies (study_name) VALUES ('late')\")\n"
        "connection.execute(\"INSERT INTO study_directions VALUES (2, 'MAXIMIZE', 2, 0)\")\n"
        "connection.commit()\n"
        f"os.kill(os.getpid(), {signal.SIGKILL.value})\n"
    )
    with sqlite3.connect(source) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    assert subprocess.run([sys.executable, "-c", code, str(source)]).returncode == -signal.SIGKILL
    before = content(source), content(Path(f"{source}-wal"))
    assert [study["name"] for study in export(str(source), str(tmp_path / "b.db")).studies] == ["late", "mnist"]
    assert [study["name"] for study in merge([str(source)], str(tmp_path / "c.db")).studies] == ["late", "mnist"]
    assert (content(source), content(Path(f"{source}-wal"))) == before


def test_what_cannot_be_done_is_said_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    there = str(tmp_path / "there.db")
    export(str(source), there)
    before = sorted(os.listdir(tmp_path)), content(Path(there))
    with pytest.raises(StorageError, match=r"there\.db exists already"):
        export(str(source), there)
    with pytest.raises(InvalidInput, match="is one of the databases to read"):
        merge([there, str(source)], there)
    with pytest.raises(StudyNotFound, match="holds no study 'nosuch'"):
        export(str(source), str(tmp_path / "new.db"), "nosuch")
    with pytest.raises(StudyNotFound, match="none of the databases holds a study 'nosuch'"):
        merge([str(source)], str(tmp_path / "new.db"), "nosuch")
    with pytest.raises(StorageError, match="does not exist"):
        merge([str(source), str(tmp_path / "missing.db")], str(tmp_path / "new.db"))
    with pytest.raises(StorageError, match=r"the folder .* does not exist"):
        export(str(source), str(tmp_path / "nowhere" / "new.db"))
    assert (sorted(os.listdir(tmp_path)), content(Path(there))) == before


def test_a_damaged_page_is_noticed(source: Path, tmp_path: Path) -> None:
    data = bytearray(source.read_bytes())
    data[20 * 4096 : 24 * 4096] = b"\xff" * (4 * 4096)
    source.write_bytes(data)
    with pytest.raises(StorageError, match=r"malformed|would not be whole"):
        export(str(source), str(tmp_path / "b.db"))
    assert not (tmp_path / "b.db").exists()


def test_every_table_is_copied_or_left_out_on_purpose(database: Database) -> None:
    inspector = sa.inspect(database.db)
    owned = {
        table
        for table in inspector.get_table_names()
        if {column["name"] for column in inspector.get_columns(table)} & {"trial_id", "study_id"}
    }
    assert owned == {"studies", "trials", *OF_STUDY, *OF_TRIAL} | (set(NOT_COPIED) & set(inspector.get_table_names()))


def test_a_trial_has_its_name_from_its_beginning(database: Database) -> None:
    ledger = Ledger(database, new_study(database))
    numbers = [begin(ledger, 16), begin(ledger, 16)]
    ledger.study.ask()
    with reading(database.url.removeprefix("sqlite:///")) as connection:
        names = [trial.guid for trial in Rows(connection).read("mnist").trials]
    assert names[:2] == [ledger.frozen(number).user_attrs["guid"] for number in numbers]
    assert len(set(names)) == 3
    assert ledger.study.trials[2].state == TrialState.RUNNING


MEGABYTES = 2
PEAK = """
import re, sys
from pathlib import Path
from batchopt.store.doctor.doctor import examine
from batchopt.store.transfer.transfer import export, merge

def peak():
    # Not of `resource`, which begins with what the parent had.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

small, large, folder, other = sys.argv[1:]
for at, storage in enumerate((small, large)):
    # The small one first, which brings all that these import.
    before = peak()
    merge([storage], other if at else f"{folder}/other.db", "mnist")
    examine(other if at else f"{folder}/other.db")
    export(other if at else storage, f"{folder}/back{at}.db")
    export(storage, f"{folder}/file{at}.db")
    examine(storage)
print(peak() - before)
"""


@pytest.mark.parametrize(
    "any_storage",
    ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SERVERS)],
    indirect=True,
)
def test_checkpoints_pass_one_by_one_however_many_there_are(
    source: Path, tmp_path: Path, empty_database: Path, any_storage: str
) -> None:
    """Merged, exported and examined, with half of them in files: memory holds a few, not all 32 of them."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux says what a process took at most")
    large, count = Path(shutil.copy(empty_database, tmp_path / "large.db")), 32
    database = open_database(str(large), create=False)
    study = new_study(database)
    in_rows, in_files = Ledger(database, study), Ledger(database, study, checkpoint_limit=1)
    for at in range(count):
        ledger = in_files if at % 2 else in_rows
        number = begin(ledger, 64)
        ledger.add_checkpoint(number, 1, os.urandom(1 << 20) * MEGABYTES)
    database.db.dispose()
    command = [sys.executable, "-c", PEAK, str(source), str(large), str(tmp_path), any_storage]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # A server's driver makes many copies of what it sends.
    assert float(done.stdout) < count * MEGABYTES * 0.75
    (exported,) = merge([str(tmp_path / "back1.db")], str(tmp_path / "last.db")).studies
    assert exported["checkpoints"] == count
    assert examine(str(tmp_path / "last.db")).findings == []
