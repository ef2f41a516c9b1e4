"""Real studies of metrics that are no accuracy: an error, a loss, a score; less is better, or more."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from batchopt import Budget, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.report.answer.reading import list_studies, read_evidence
from batchopt.report.show.document import document
from batchopt.report.show.pictures import pictures
from batchopt.report.show.study_report import read_report
from batchopt.report.show.terminal import printed
from optuna.study import StudyDirection
from rich.console import Console


def build_model(learning_rate: float) -> Any:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1)])
    metrics = ["mae", keras.metrics.R2Score(name="r2")]
    model.compile(keras.optimizers.Adam(learning_rate), "mse", metrics=metrics)
    return model


def load_data(path: str | None) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1200, 4)).astype("float32")
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3] + 0.1 * rng.standard_normal((1200, 1))).astype("float32")
    return Dataset((x[:800], y[:800]), validation=(x[800:1000], y[800:1000]), test=(x[1000:], y[1000:]))


def study_in(folder: Path, metric: str, goal: Goal) -> Study:
    return Study(
        Task(build_model, load_data, metric),
        SearchSpace([8, 32, 128], (1e-3, 1e-1)),
        goal,
        name=metric,
        storage=str(folder / "studies.db"),
        options=Options(device="cpu", engine="fused", probe=False),
    )


def shown(report: Any) -> str:
    console = Console(width=300, record=True, file=StringIO())
    console.print(printed(document(report)))
    return console.export_text()


def test_an_error_is_searched_told_and_confirmed_in_its_own_units(tmp_path: Path) -> None:
    study = study_in(tmp_path, "mae", Goal(epochs=4))
    report = study.run(Budget(trials=6, until_known=False))
    stored = optuna.load_study(study_name="mae", storage=f"sqlite:///{tmp_path}/studies.db")
    assert (stored.directions, stored.metric_names) == ([StudyDirection.MINIMIZE], ["validation_mae"])
    assert stored.best_value == min(trial.value for trial in stored.trials if trial.value is not None)

    best = report.recommendation
    assert best is not None and best.low < best.expected < best.high < 1.0
    assert (best.quantity, best.value) == ("validation_mae", stored.trials[best.trial].value)
    described = report.describe()
    assert described["metric"] == {"name": "mae", "direction": "minimize"}
    assert list_studies(study.storage)[0]["metric"] == described["metric"]
    assert all(row.gain is None or row.gain == pytest.approx(0) or row.batch_size != 32 for row in report.by_batch_size)

    report = study.confirm(2)
    assert report.confirmation is not None
    text = shown(report)
    assert f"Validation mae {best.expected:.4g} expected after 4 epochs" in text
    assert "test mae" in text and "difference of mae, lower is better" in text
    assert "accuracy" not in text and "points" not in text and "%;" not in text
    drawn = " ".join(figure.to_json() for figure in pictures(read_evidence(study.storage)).values())
    assert "Expected validation mae" in drawn and "accuracy" not in drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "direction", "target"), [("loss", "minimize", 0.5), ("r2", "maximize", 0.6), ("mae", "minimize", 0.5)]
)
def test_a_target_is_in_the_units_of_the_metric(tmp_path: Path, metric: str, direction: str, target: float) -> None:
    report = study_in(tmp_path, metric, Goal("time", epochs=12, target=target)).run(Budget(trials=8, until_known=False))
    stored = optuna.load_study(study_name=metric, storage=f"sqlite:///{tmp_path}/studies.db")
    assert stored.metric_names == ["seconds_to_target"]
    best = report.recommendation
    assert best is not None and best.quantity == "seconds_to_target"
    assert report.metric.direction == direction
    reached = [trial for trial in stored.trials if trial.value is not None]
    assert reached
    for trial in reached:
        *before, last = trial.intermediate_values.values()
        assert (last <= target) if direction == "minimize" else (last >= target)
        assert all((value > target) if direction == "minimize" else (value < target) for value in before)
    assert f"{target:g} validation {metric} expected after" in shown(report)
    other = read_report(f"{tmp_path}/studies.db", goal="pareto")
    assert other.front and [row.seconds for row in other.front] == sorted(row.seconds for row in other.front)
    means = [row.mean for row in other.front]
    assert means == sorted(means, reverse=direction == "minimize")
