"""Reports and trials from a database alone: nothing is trained, nothing is written."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
from batchopt import read_report
from batchopt.errors import StorageError, StudyNotFound
from batchopt.report.answer.reading import list_studies, read_study
from batchopt.search.laws import fitted_steps_law
from batchopt.store.database import open_database
from written_study import GOAL, MACHINE, write_study


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of two studies, and one of these alone: `both.db` and `studies.db`."""
    folder = tmp_path_factory.mktemp("written")
    write_study(folder / "studies.db")
    shutil.copy(folder / "studies.db", folder / "both.db")
    write_study(folder / "both.db", "cifar")
    return folder


@pytest.fixture
def storage(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copy(written / "studies.db", tmp_path))


@pytest.fixture
def both(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copy(written / "both.db", tmp_path))


def add_foreign_study(storage: Path, name: str) -> None:
    """Another program's study with two objectives, in the same database."""
    study = optuna.create_study(storage=f"sqlite:///{storage}", study_name=name, directions=["minimize", "maximize"])
    study.add_trial(optuna.create_trial(values=[1.0, 2.0]))


def test_a_report_says_what_was_found(storage: Path) -> None:
    report = read_report(str(storage))
    assert (report.study, report.goal, report.elapsed_seconds) == ("mnist", GOAL.describe(), 12.5)
    assert report.storage == f"sqlite:///{storage}"
    assert report.machine == MACHINE.describe()
    assert report.trials == {"complete": 2, "pruned": 3, "running": 1}
    assert report.recommendation is not None
    assert (report.recommendation.batch_size, report.recommendation.value) == (64, 0.9375)
    assert [(row.batch_size, row.trials, row.epochs) for row in report.by_batch_size] == [
        (16, 2, 2),
        (64, 1, 2),
        (256, 2, 1),
    ]


def test_a_report_is_json(storage: Path) -> None:
    described = read_report(str(storage)).describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described


def test_a_law_without_an_upper_bound_is_json(storage: Path) -> None:
    report = read_report(str(storage))
    law = fitted_steps_law([8, 32, 128, 512], [1600, 400, 100, 90])
    assert law is not None
    assert report.to_target is not None
    told = dataclasses.replace(report, to_target=dataclasses.replace(report.to_target, law=law))
    described = json.loads(json.dumps(told.describe(), allow_nan=False))
    assert described["to_target"]["law"]["high"] is None
    assert described["to_target"]["law"]["low"] == law.low


def test_the_trials_of_a_study_come_by_number(storage: Path) -> None:
    trials = read_study(str(storage), "mnist")
    assert [(trial.number, trial.state, trial.note) for trial in trials] == [
        (0, "complete", ""),
        (1, "complete", ""),
        (2, "pruned", ""),
        (3, "pruned", "diverged"),
        (4, "pruned", "out of memory"),
        (5, "running", ""),
    ]


def test_reading_writes_nothing(storage: Path) -> None:
    before = {path.name: path.read_bytes() for path in storage.parent.iterdir()}
    read_report(str(storage))
    read_study(str(storage))
    list_studies(str(storage))
    assert {path.name: path.read_bytes() for path in storage.parent.iterdir()} == before


@pytest.mark.parametrize("read", [read_report, read_study, list_studies])
def test_reading_a_database_that_is_not_there_does_not_make_it(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(StorageError, match=r"missing\.db does not exist"):
        read(str(tmp_path / "missing.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [read_report, read_study])
def test_the_name_may_be_left_out_where_there_is_only_one_study(storage: Path, both: Path, read: object) -> None:
    assert callable(read)
    assert read(str(storage)) is not None
    with pytest.raises(StudyNotFound, match="several studies; choose one of cifar, mnist with --study"):
        read(str(both))
    assert read(str(both), "cifar") is not None


@pytest.mark.parametrize("read", [read_report, read_study])
def test_a_study_that_is_not_there_is_refused_with_those_that_are(storage: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(StudyNotFound, match=r"no study 'cifar' in .*it holds 'mnist'\. Check --study"):
        read(str(storage), "cifar")


def test_a_database_without_studies_says_so(tmp_path: Path) -> None:
    storage = tmp_path / "studies.db"
    open_database(str(storage), create=True).db.dispose()
    assert list_studies(str(storage)) == []
    with pytest.raises(StudyNotFound, match="holds no study"):
        read_report(str(storage))


@pytest.mark.parametrize("read", [read_report, read_study])
def test_a_study_that_batchopt_did_not_make_is_refused(storage: Path, read: object) -> None:
    assert callable(read)
    add_foreign_study(storage, "foreign")
    with pytest.raises(StorageError, match=r"study 'foreign' in .* was not made by batchopt"):
        read(str(storage), "foreign")


def test_a_study_that_batchopt_did_not_make_is_not_listed_and_not_in_the_way(storage: Path) -> None:
    """One study is listed, so its name may be left out."""
    add_foreign_study(storage, "foreign")
    assert [study["study"] for study in list_studies(str(storage))] == ["mnist"]
    assert read_report(str(storage)).study == "mnist"


def test_studies_are_listed_by_name_with_their_goal_and_their_trials(both: Path) -> None:
    trials, metric = {"complete": 2, "pruned": 3, "paused": 1}, {"name": "accuracy", "direction": "maximize"}
    assert list_studies(str(both)) == [
        {"study": "cifar", "goal": GOAL.describe(), "metric": metric, "trials": trials},
        {"study": "mnist", "goal": GOAL.describe(), "metric": metric, "trials": trials},
    ]


def test_a_study_is_read_while_it_is_written(storage: Path) -> None:
    """A session that holds the database for writing does not stop a report."""
    writer = sqlite3.connect(storage)
    writer.execute("begin immediate")
    assert read_report(str(storage)).study == "mnist"
    writer.rollback()
    writer.close()
