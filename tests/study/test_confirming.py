"""`--confirm`, really done: a study, runs of its own beside it, Ctrl-C in the middle, the test set opened once."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.cli.study_script import script_command
from batchopt.datasets import load_mnist
from batchopt.errors import DataError, InvalidInput
from batchopt.events import Confirmed, Event, Noted
from batchopt.measured import DeviceMemory
from batchopt.question.metric import Metric
from batchopt.report.answer.recommendation import Recommendation, Report
from batchopt.report.show.study_report import read_report
from batchopt.search.advice import Advice, Estimate
from batchopt.signals import Interrupted
from batchopt.store.database import open_database
from batchopt.store.doctor.backup import back_up
from batchopt.store.leases import Turns
from batchopt.store.owner import new_owner
from batchopt.store.stamp import Stamp
from batchopt.store.tables import confirmations_table
from batchopt.study import confirming
from batchopt.study.confirming import planned, training_seconds
from batchopt.training.messages import Ready
from batchopt.workers.slot import Slot
from click.testing import CliRunner
from mnist import build_model
from written_study import MACHINE, epoch

SPACE = SearchSpace([16, 32, 64, 128, 256], (1e-4, 1e-1))
GOAL = Goal(epochs=2)


def load(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    parts = [(images[start:stop], labels[start:stop]) for start, stop in ((0, 1000), (1000, 1300), (1300, 1800))]
    return Dataset(*parts)


def study_in(folder: Path, load: Any = load, goal: Goal = GOAL) -> Study:
    options = Options(device="cpu", engine="fused", probe=False, prune=False)
    storage = str(folder / "studies.db")
    return Study(Task(build_model, load), SPACE, goal, name="mnist", storage=storage, options=options)


def copy(folder: Path, to: Path) -> None:
    """What is not yet in the file itself included."""
    back_up(str(folder / "studies.db"), str(to / "studies.db"))


def kept(folder: Path) -> list[dict[str, Any]]:
    with sa.create_engine(f"sqlite:///{folder}/studies.db", poolclass=sa.NullPool).connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(confirmations_table)).mappings()]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials whose confirmation was interrupted by Ctrl-C after its second run."""
    folder = tmp_path_factory.mktemp("interrupted")
    study = study_in(folder)
    study.run(Budget(trials=2), tries=[Configuration(128, 0.01), Configuration(32, 1e-4)])

    def interrupt(event: Event) -> None:
        if isinstance(event, Confirmed) and event.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        study.confirm(2, listener=interrupt)
    return folder


@pytest.fixture(scope="module")
def confirmed(interrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The same, gone on with: its folder, and what was said."""
    folder = tmp_path_factory.mktemp("confirmed")
    copy(interrupted, folder)
    events: list[Event] = []
    study_in(folder).confirm(2, listener=events.append)
    return folder, events


@pytest.mark.slow
def test_what_was_confirmed_before_an_interruption_is_not_trained_again(
    interrupted: Path, confirmed: tuple[Path, list[Event]]
) -> None:
    folder, events = confirmed
    before, after = kept(interrupted), kept(folder)
    assert len(before) == 2 < len(after)
    assert [row for row in after if row in before] == before
    assert sum(isinstance(event, Confirmed) for event in events) == len(after) - len(before)
    assert {row["run"] for row in after} == {0, 1}
    assert len({(row["role"], row["run"]) for row in after}) == len(after)
    assert all(row["epochs"] == 2 and row["train_seconds"] > 0 for row in after)


@pytest.mark.slow
def test_its_runs_are_no_trials_and_its_seeds_no_trials(confirmed: tuple[Path, list[Event]]) -> None:
    folder = confirmed[0]
    study = optuna.load_study(study_name="mnist", storage=f"sqlite:///{folder}/studies.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert all(row["seed"] >= 2**31 for row in kept(folder))


@pytest.mark.slow
def test_the_json_has_accuracy_and_seconds_with_intervals_and_the_difference_to_32(
    confirmed: tuple[Path, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line; the study itself is done, and its own test is elsewhere."""
    folder = confirmed[0]
    monkeypatch.setattr(Study, "run", lambda study, *budget, **options: study.report())
    options = [
        "--storage",
        str(folder / "studies.db"),
        "--study",
        "mnist",
        "--confirm",
        "--confirm-seeds",
        "2",
        "--json",
    ]
    done = CliRunner().invoke(script_command(Task(build_model, load), SPACE, GOAL), options)
    assert done.exit_code == 0, done.output
    assert "the test set stays closed" in done.stderr
    report, rows = json.loads(done.stdout), kept(folder)
    found, advice = report["confirmation"], report["recommendation"]
    assert (found["current"], found["reference"], found["recommendations"]) == (True, 32, 1)
    first = found["configurations"][0]
    assert first["role"] == "recommended"
    assert (first["batch_size"], first["learning_rate"]) == (advice["batch_size"], advice["learning_rate"])
    mine = [row["test_value"] for row in rows if row["role"] == "recommended"]
    assert first["test_value"]["mean"] == pytest.approx(sum(mine) / 2)
    assert first["test_value"]["low"] < first["test_value"]["mean"] < first["test_value"]["high"]
    assert first["train_seconds"]["count"] == 2
    others = [row for row in found["configurations"] if row["batch_size"] != 32]
    assert others
    assert all(row["value_difference"]["count"] == 2 for row in others)
    assert any(row["batch_size"] == 32 for row in found["configurations"])
    assert found["test_spread"] > 0


@pytest.mark.slow
def test_a_second_time_nothing_is_trained_and_the_test_set_stays_closed(
    confirmed: tuple[Path, list[Event]],
) -> None:
    folder = confirmed[0]
    before, events = kept(folder), list[Event]()

    def never(path: str | None) -> Dataset:
        raise AssertionError("the data was loaded")

    report = study_in(folder, never).confirm(2, listener=events.append)
    assert [event for event in events if not isinstance(event, Noted)] == []
    assert "the test set stays closed" in events[0].text  # type: ignore[union-attr]
    assert kept(folder) == before
    assert report.confirmation is not None


@pytest.mark.slow
def test_a_recommendation_that_has_changed_is_confirmed_too_and_what_is_known_is_not_trained_again(
    confirmed: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    """As if another one had been recommended before, beside the same 32."""
    copy(confirmed[0], tmp_path)
    with sa.create_engine(f"sqlite:///{tmp_path}/studies.db", poolclass=sa.NullPool).begin() as connection:
        table = confirmations_table
        connection.execute(table.update().values(plan="another", trials=1))
        recommended = table.c.role == "recommended"
        connection.execute(table.update().where(recommended).values(learning_rate=0.05))
    before, events = kept(tmp_path), list[Event]()
    report = study_in(tmp_path).confirm(2, listener=events.append)
    said = [event.text for event in events if isinstance(event, Noted)]
    assert "the recommendation has changed since one was confirmed after 1 trials; the new one is confirmed too" in said
    new = [row for row in kept(tmp_path) if row["plan"] != "another"]
    assert [row for row in kept(tmp_path) if row["plan"] == "another"] == before
    assert len(new) == len(before)
    known = {row["train_seconds"] for row in before if row["role"] != "recommended"}
    assert {row["role"] for row in new if row["train_seconds"] not in known} == {"recommended"}
    assert report.confirmation is not None
    assert (report.confirmation.current, report.confirmation.recommendations) == (True, 2)
    assert sum(isinstance(event, Confirmed) for event in events) == len(new)


@pytest.mark.slow
def test_what_another_process_confirms_is_waited_for(confirmed: tuple[Path, list[Event]], tmp_path: Path) -> None:
    copy(confirmed[0], tmp_path)
    database = open_database(str(tmp_path / "studies.db"), create=False)
    other = Turns(database.db, -1, new_owner(), lease_seconds=math.inf)
    assert other.take()
    said: list[str] = []

    def hear(event: Event) -> None:
        assert isinstance(event, Noted)
        said.append(event.text)
        other.end()

    study_in(tmp_path).confirm(2, listener=hear)
    assert said == [
        "another process confirms; waiting for what it finds",
        "confirmed already: what was found is kept, the test set stays closed",
    ]
    database.db.dispose()


@pytest.mark.slow
def test_data_without_a_test_set_is_said_in_a_line_before_anything_is_trained(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(interrupted, tmp_path)
    stamp = Stamp.read(optuna.load_study(study_name="mnist", storage=f"sqlite:///{tmp_path}/studies.db"))
    assert stamp is not None
    ready = Ready(MACHINE, stamp.program, 1, "fused", (), DeviceMemory(1 << 30, 0), has_test=False)
    killed: list[bool] = []

    class Untested:
        def kill(self) -> None:
            killed.append(True)

    monkeypatch.setattr(confirming, "ready_slot", lambda *setup, **how: Slot(Untested(), ready))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^--confirm: the data has no test set. Load it with Dataset\(..., test="):
        study_in(tmp_path).confirm(2)
    assert killed == [True]
    assert kept(tmp_path) == kept(interrupted)


def test_a_study_that_is_to_be_confirmed_and_has_no_test_set_is_not_begun(tmp_path: Path) -> None:
    """What it is asked for in the end it could not do."""
    with pytest.raises(DataError, match="the data has no test set"):
        study_in(tmp_path, lambda path: Dataset(load(path).train)).run(Budget(trials=1), test_set=True)
    assert list(tmp_path.iterdir()) == []


def test_one_run_has_no_interval(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--confirm-seeds 1: give at least 2"):
        study_in(tmp_path).confirm(1)


@pytest.mark.parametrize(("accuracies", "seconds"), [([0.5, 0.9], 1.0 + 0.75 * 4.0), ([0.5, 0.6], 5.0), ([0.9], 8 / 9)])
def test_seconds_to_a_target_end_where_the_curve_crosses_it(accuracies: list[float], seconds: float) -> None:
    """Of the last epoch as much as its part of the way; a run that missed it has all that it was trained."""
    trained = [epoch(at, each, train_seconds=4.0 ** (at - 1)) for at, each in enumerate(accuracies, start=1)]
    assert training_seconds(trained, Metric().target(0.8)) == pytest.approx(seconds)
    assert training_seconds(trained, None) == sum(each.train_seconds for each in trained)


@pytest.mark.slow
def test_what_is_recommended_for_a_target_is_confirmed_beside_32_at_its_own_rate(tmp_path: Path) -> None:
    """From the command line, on a real study: each run ends at the target, and the report says when."""
    target = 0.6
    storage = str(tmp_path / "studies.db")
    options = [
        "--goal",
        "time",
        "--target",
        "60%",
        "--epochs",
        "5",
        "--confirm",
        "--confirm-seeds",
        "2",
        "--trials",
        "3",
    ]
    options += [
        "--try",
        "64:0.003",
        "--try",
        "32:0.003",
        "--try",
        "16:0.0001",
        "--storage",
        storage,
        "--study",
        "mnist",
    ]
    options += ["--device", "cpu", "--engine", "fused", "--no-probe"]
    done = CliRunner().invoke(script_command(Task(build_model, load), SPACE, GOAL), options)
    assert done.exit_code == 0, done.output
    assert "s to 60%" in done.output and "each trained until 60% validation accuracy" in done.output
    report = read_report(storage)
    rows, found = kept(tmp_path), report.confirmation
    assert report.at_target is not None and report.advice is not None and found is not None
    assert {(row["role"], row["run"]) for row in rows} >= {("recommended", 0), ("recommended", 1)}
    assert (found.current, found.target) == (True, target)
    assert found.configurations[0].batch_size == report.advice.recommended.batch_size
    assert any(row.batch_size == 32 for row in found.configurations)
    for row in rows:
        assert row["test_value"] is not None and row["train_seconds"] > 0
        assert row["validation_value"] >= target or row["epochs"] == 5
    first = found.configurations[0]
    assert first.train_seconds is not None and first.train_seconds.count + first.missed == 2


@pytest.mark.slow
def test_a_target_that_nobody_reached_leaves_nothing_to_confirm(tmp_path: Path) -> None:
    study = study_in(tmp_path, goal=Goal("time", epochs=1, target=0.999))
    study.run(Budget(trials=1), tries=[Configuration(256, 1e-4)])
    events: list[Event] = []
    study.confirm(2, listener=events.append)
    assert events == [Noted("nothing to confirm: no trial reached 99.9%")]
    assert kept(tmp_path) == []


def estimate(batch_size: int, seconds: float = 1.0) -> Estimate:
    return Estimate(batch_size, 0.01, {}, 0.9, 0.8, 0.95, 0.01, 0.9, 0.5, seconds, 5.0, 1, 0)


def report_of(best: int, fastest: int, sizes: list[int]) -> Report:
    rows = [estimate(size) for size in sizes]
    by_size = {row.batch_size: row for row in rows}
    ours = by_size[best]
    advice = Advice(ours, "balanced", ours, by_size[fastest], True, rows, 0.01, "range", [best, fastest], [], 0.01)
    advised = Recommendation(best, 0.01, {}, "validation_accuracy", 0.9, 0.8, 0.95, 0.9, 0.01, 1.0, 1.0, 0.9, 1.0, 0)
    return Report("s", {}, Metric(), "", {}, {}, advised, advice, [], 0.0)


@pytest.mark.parametrize(
    ("best", "fastest", "sizes", "largest", "expected"),
    [
        (128, 256, [16, 32, 64, 128, 256], None, {"recommended": 128, "fastest": 256, "reference": 32}),
        (128, 128, [16, 32, 64, 128, 256], None, {"recommended": 128, "reference": 32}),
        (32, 256, [16, 32, 64, 128, 256], None, {"recommended": 32, "fastest": 256}),
        (128, 32, [16, 32, 64, 128, 256], None, {"recommended": 128, "fastest": 32}),
        (256, 512, [128, 256, 512], None, {"recommended": 256, "fastest": 512, "reference": 128}),
        (8, 8, [8, 16, 32, 64], 16, {"recommended": 8, "reference": 16}),
    ],
)
def test_each_configuration_is_confirmed_once_and_32_where_it_is_to_be_had_and_fits(
    best: int, fastest: int, sizes: list[int], largest: int | None, expected: dict[str, int]
) -> None:
    plans = planned(report_of(best, fastest, sizes), [], largest)
    assert {plan.role: plan.configuration.batch_size for plan in plans} == expected
