"""`--confirm`, really done: a study, runs of its own beside it, Ctrl-C in the middle, the test set opened once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from optimizer import Dataset, Goal, Options, SearchSpace, Study, Task
from optimizer.confirming import planned
from optimizer.errors import DataError, InvalidInput
from optimizer.report.events import Confirmed, Event, Noted, Starting
from optimizer.report.recommendation import Recommendation, Report
from optimizer.search.advice import Advice, Estimate
from optimizer.store.tables import confirmations_table
from studies.data import load_mnist
from studies.mnist import build_model

MNIST = Path(__file__).parents[1] / "studies" / "mnist.py"
SPACE = SearchSpace([16, 32, 64, 128, 256], (1e-4, 1e-1))
OPTIONS = ["--train-examples", "1000", "--batch-sizes", "16..256", "--engine", "fused", "--device", "cpu", "--no-probe"]
OPTIONS += ["--trials", "2", "--epochs", "2", "--no-pruning", "--try", "128:0.01", "--confirm", "--confirm-seeds", "2"]


def study_in(folder: Path, load: Any = load_mnist) -> Study:
    """The same study as the script's."""
    options = Options(device="cpu", engine="fused", train_examples=1000, probe=False)
    storage = str(folder / "studies.db")
    return Study(Task(build_model, load), SPACE, Goal(epochs=2), name="mnist", storage=storage, options=options)


def kept(folder: Path) -> list[dict[str, Any]]:
    with sa.create_engine(f"sqlite:///{folder}/studies.db", poolclass=sa.NullPool).connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(confirmations_table)).mappings()]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two trials whose confirmation was interrupted after its second run."""
    folder = tmp_path_factory.mktemp("confirmed")
    command = [sys.executable, str(MNIST), *OPTIONS]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert started.stdout is not None
    while not started.stdout.readline().startswith("confirm  2/"):
        assert started.poll() is None
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert (started.returncode, said.startswith("interrupted")) == (130, True)
    return folder


@pytest.fixture(scope="module")
def confirmed(interrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The same, gone on with: the folder, the JSON, and what was said."""
    folder = tmp_path_factory.mktemp("again")
    shutil.copy(interrupted / "studies.db", folder)
    command = [sys.executable, str(MNIST), *OPTIONS, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_what_was_confirmed_before_an_interruption_is_not_trained_again(
    interrupted: Path, confirmed: tuple[Path, dict[str, Any], str]
) -> None:
    folder, _, said = confirmed
    before, after = kept(interrupted), kept(folder)
    assert 2 <= len(before) < len(after)
    assert [row for row in after if row in before] == before
    assert said.count("\nconfirm") == len(after) - len(before)
    assert {row["run"] for row in after} == {0, 1}
    assert len({(row["role"], row["run"]) for row in after}) == len(after)
    assert all(row["epochs"] == 2 and row["train_seconds"] > 0 for row in after)


def test_its_runs_are_no_trials_and_its_seeds_no_trials(confirmed: tuple[Path, dict[str, Any], str]) -> None:
    folder = confirmed[0]
    study = optuna.load_study(study_name="mnist", storage=f"sqlite:///{folder}/studies.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert all(row["seed"] >= 2**31 for row in kept(folder))
    curves = [trial.value for trial in study.trials]
    assert all(row["validation_accuracy"] not in curves for row in kept(folder))


def test_the_json_has_accuracy_and_seconds_with_intervals_and_the_difference_to_32(
    confirmed: tuple[Path, dict[str, Any], str],
) -> None:
    folder, report, _ = confirmed
    found, rows = report["confirmation"], kept(folder)
    assert (found["current"], found["reference"], found["recommendations"]) == (True, 32, 1)
    first = found["configurations"][0]
    assert first["role"] == "recommended"
    advice = report["recommendation"]
    assert (first["batch_size"], first["learning_rate"]) == (advice["batch_size"], advice["learning_rate"])
    mine = [row["test_accuracy"] for row in rows if row["role"] == "recommended"]
    assert first["test_accuracy"]["mean"] == pytest.approx(sum(mine) / 2)
    assert first["test_accuracy"]["low"] < first["test_accuracy"]["mean"] < first["test_accuracy"]["high"]
    assert first["train_seconds"]["count"] == 2
    others = [row for row in found["configurations"] if row["batch_size"] != 32]
    assert all(row["accuracy_difference"]["count"] == 2 for row in others)
    assert any(row["batch_size"] == 32 for row in found["configurations"])
    assert found["test_spread"] > 0


def test_a_second_time_nothing_is_trained_and_the_test_set_stays_closed(
    confirmed: tuple[Path, dict[str, Any], str],
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


def test_a_recommendation_that_has_changed_is_confirmed_too_and_what_is_known_is_not_trained_again(
    confirmed: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """As if another one had been recommended before, beside the same 32."""
    shutil.copy(confirmed[0] / "studies.db", tmp_path)
    with sa.create_engine(f"sqlite:///{tmp_path}/studies.db", poolclass=sa.NullPool).begin() as connection:
        table = confirmations_table
        connection.execute(table.update().values(plan="another", trials=1))
        recommended = table.c.role == "recommended"
        connection.execute(table.update().where(recommended).values(learning_rate=0.05))
    before, events = kept(tmp_path), list[Event]()
    report = study_in(tmp_path).confirm(2, listener=events.append)
    said = [event.text for event in events if isinstance(event, Noted)]
    assert "the recommendation has changed since 1 trials; the new one is confirmed too" in said
    new = [row for row in kept(tmp_path) if row["plan"] != "another"]
    assert [row for row in kept(tmp_path) if row["plan"] == "another"] == before
    assert len(new) == len(before)
    known = {(row["role"], row["run"]): row["train_seconds"] for row in before}
    again = {role for role, run in known if all(row["train_seconds"] != known[role, run] for row in new)}
    assert again == {"recommended"}
    assert report.confirmation is not None
    assert (report.confirmation.current, report.confirmation.recommendations) == (True, 2)
    assert sum(isinstance(event, Confirmed) for event in events) == len(new)


def test_data_without_a_test_set_is_said_in_a_line(confirmed: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    shutil.copy(confirmed[0] / "studies.db", tmp_path)

    def untested(path: str | None) -> Dataset:
        whole = load_mnist(path)
        return Dataset(whole.train, validation_examples=whole.validation_examples)

    events: list[Event] = []
    with pytest.raises(
        DataError, match=r"^--confirm: the data has no test set. Load it with Dataset\(..., test=...\).$"
    ):
        study_in(tmp_path, untested).confirm(3, listener=events.append)
    assert [type(event) for event in events] == [Starting]
    assert kept(tmp_path) == kept(confirmed[0])


def test_one_run_has_no_interval(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--confirm-seeds 1: give at least 2"):
        study_in(tmp_path).confirm(1)


def estimate(batch_size: int, seconds: float = 1.0) -> Estimate:
    return Estimate(batch_size, 0.01, {}, 0.9, 0.8, 0.95, 0.01, 0.5, seconds, 1, 0)


def report_of(best: int, fastest: int, sizes: list[int]) -> Report:
    rows = [estimate(size) for size in sizes]
    by_size = {row.batch_size: row for row in rows}
    advice = Advice(by_size[best], True, rows, 0.01, [best, fastest], by_size[fastest], [], 0.01)
    advised = Recommendation(best, 0.01, {}, 0.9, 0.8, 0.95, 0.9, 1.0, 0)
    return Report("s", {}, "", {}, {}, advised, advice, [], 0.0)


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
