"""Trials that end by themselves, as a callback may end them; and which epoch they count by, the last or the best."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.datasets import load_mnist
from batchopt.errors import InvalidInput
from batchopt.question.options import Options as Asked
from batchopt.report.answer.reading import read_study
from batchopt.report.show.advice_view import advice_sentences
from batchopt.report.show.study_report import read_report
from batchopt.report.show.tables import answer_notes, answer_table, details_table
from batchopt.search.steps import Step
from batchopt.store.history import as_trial
from batchopt.study.session import Session
from batchopt.words import duration
from mnist import build_model
from written_study import MACHINE, STAMP, epoch

EPOCHS = 8


def curve(step: Step) -> list[float]:
    """Small batches rise and fall, and end after five epochs; large ones rise to the end."""
    height = 0.9 - abs(step.learning_rate - 0.01) - step.batch_size / 10_000
    if step.batch_size == 16:
        return [height - 0.2 + share for share in (0.0, 0.15, 0.2, 0.1, 0.05)]
    return [height - 0.5 / at for at in range(1, EPOCHS + 1)]


def searched(storage: str, goal: Goal, search: str = "auto", trials: int = 5) -> None:
    stamp = dataclasses.replace(STAMP, goal=goal, search=search)
    with Session.open("s", storage, stamp, options=Asked(), budget=Budget(trials=trials, until_known=False)) as session:
        while (step := session.ask()) is not None:
            begun, _ = session.state(step)
            values = curve(step)
            for at in range(begun + 1, step.until_epoch + 1):
                stopped = len(values) < EPOCHS and at == len(values)
                verdict = session.tell(step.trial, MACHINE, epoch(at, values[at - 1]), stopped=stopped)
                if verdict == "stop":
                    break
            session.let_go(step.trial)
        session.end()


@pytest.mark.parametrize(("counts", "search"), [("last", "auto"), ("best", "auto"), ("best", "random")])
def test_one_that_ends_by_itself_is_complete_and_counts_by_what_was_asked(
    tmp_path: Path, counts: Any, search: str
) -> None:
    """Also for a session that finds it in the database; the advice is in the values that trials count by."""
    storage, goal = f"sqlite:///{tmp_path}/s.db", Goal(epochs=EPOCHS, value=counts)
    searched(storage, goal, search)
    searched(storage, goal, search, trials=8)
    study = optuna.load_study(study_name="s", storage=storage)
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    early = [trial for trial in complete if len(trial.intermediate_values) == 5]
    assert len(study.trials) == 8 and early and len(complete) > len(early)
    assert not [trial for trial in study.trials if trial.state.name == "RUNNING"]
    for trial in complete:
        values = list(trial.intermediate_values.values())
        assert trial.value == (max(values) if counts == "best" else values[-1])
    report = read_report(storage, "s")
    assert report.recommendation is not None
    assert report.goal.get("value", "last") == counts
    for record in read_study(storage, "s"):
        known = as_trial(record, held=False, max_epochs=EPOCHS, counts=counts)
        if record.state == "complete":
            assert known.curve[EPOCHS][0] == pytest.approx(record.value)


def test_seconds_are_those_that_a_run_takes_that_ends_by_itself(tmp_path: Path) -> None:
    """The same ones in the advice, its sentence, both tables, the JSON, and Optuna's values of the trials."""
    storage = f"sqlite:///{tmp_path}/s.db"
    searched(storage, Goal("pareto", epochs=EPOCHS), "random", trials=6)
    report = read_report(storage, "s")
    assert report.advice is not None
    row, whole = report.advice.at(16), report.advice.by_batch_size[-1]
    seconds = {each.batch_size: each.seconds_per_epoch for each in report.by_batch_size}
    assert row is not None
    assert row.epochs == 5 and row.seconds == pytest.approx(5 * seconds[16])
    assert whole.epochs > 7 and whole.seconds == pytest.approx(whole.epochs * seconds[whole.batch_size])
    trials = optuna.load_study(study_name="s", storage=storage).trials
    values = {trial.params["batch_size"]: trial.values[1] for trial in trials if trial.values}
    assert values[16] == pytest.approx(row.seconds)
    answer = answer_table(report)
    shown = {cells[0]: cells for cells, _ in answer.rows}
    assert shown["16"][answer.columns.index("time")] == duration(row.seconds)
    assert "time: of one more run, which is expected to end by itself" in answer_notes(report, answer)[0]
    details = details_table(report)
    assert {cells[0]: cells[details.columns.index("epochs")] for cells, _ in details.rows}["16"] == "5"
    said = report.describe()
    assert next(each for each in said["advice"]["by_batch_size"] if each["batch_size"] == 16)["epochs"] == 5
    ended = dataclasses.replace(report, recommendation=dataclasses.replace(report.recommendation, epochs=5.0))
    assert "after about 5 of 8 epochs, where its training ends by itself" in " ".join(advice_sentences(ended))


def test_what_a_trial_counts_by_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(InvalidInput, match="its 'last' or its 'best' epoch"):
        Goal(value="mean")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="a trial ends at the target"):
        Goal("time", target=0.9, value="best")
    assert Goal("pareto", value="best").changed("time", 0.9).value == "last"
    assert "value" not in Goal().describe() and Goal(**Goal(value="best").describe()).value == "best"


def small_mnist(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(train=(images[:600], labels[:600]), validation=(images[1000:1300], labels[1000:1300]))


def make_callbacks() -> list[Any]:
    import keras

    return [
        keras.callbacks.ReduceLROnPlateau(patience=1),
        keras.callbacks.EarlyStopping(patience=1, min_delta=0.3, restore_best_weights=True),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_study_with_early_stopping_from_the_first_trial_to_the_model(tmp_path: Path) -> None:
    study = Study(
        Task(build_model, small_mnist, callbacks=make_callbacks),
        SearchSpace([16, 64, 256], (1e-3, 1e-2)),
        Goal(epochs=EPOCHS, value="best"),
        name="small",
        storage=str(tmp_path / "studies.db"),
        options=Options(device="cpu", engine="fused", probe=False),
    )
    study.run(Budget(trials=4), tries=[Configuration(16, 0.005)])
    first, *_ = read_study(str(tmp_path / "studies.db"), "small")
    assert first.state == "complete" and len(first.epochs) < EPOCHS
    assert first.value == max(row["value"] for row in first.epochs)
    trained = study.train(tmp_path / "best.keras")
    assert trained.epochs < EPOCHS
