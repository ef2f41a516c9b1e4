"""Goals `time` and `pareto` through all floors: real small studies, read back by plain Optuna and by the report."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task
from batchopt.cli.batchopt import batchopt
from batchopt.datasets import load_mnist
from batchopt.errors import InvalidInput, StudyMismatch
from batchopt.goals.kinds import kind_of
from batchopt.goals.to_target import NOT_REACHED
from batchopt.machine.capacity import Capacity
from batchopt.machine.energy import Power
from batchopt.measured import StepTime
from batchopt.optuna_private import constraint_key, trial_id_of
from batchopt.question.metric import Metric
from batchopt.report.answer.goals import target_answer
from batchopt.report.answer.reading import read_study
from batchopt.report.show.advice_view import advice_sentences, headline
from batchopt.report.show.study_report import read_report
from batchopt.search.in_optuna.their_searches import OptunaSearch
from batchopt.store.attributes import NO_VALUE, REFERENCE
from batchopt.store.database import open_database
from batchopt.store.history import as_trial, read_trials
from batchopt.store.ledger import Ledger
from batchopt.store.making import found_or_made, stamp_if_unmade
from batchopt.store.stamp import Stamp
from batchopt.study.ending import Ending
from click.testing import CliRunner
from commands import run_command
from mnist import build_model
from optuna.study import StudyDirection
from written_study import MACHINE, SPACE, STAMP, begin, epoch

SCRIPT = [str(Path(__file__).parents[2] / "studies" / "mnist.py"), "--device", "cpu", "--no-probe"]
SMALL = ["--train-examples", "2000", "--batch-sizes", "32..512", "--engine", "fused", "--storage", "studies.db"]
TARGET = 0.6


def small_mnist(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(train=(images[:1000], labels[:1000]), validation=(images[1000:1500], labels[1000:1500]))


def study_in(folder: Path, goal: Goal, **options: object) -> Study:
    defaults: dict[str, object] = {"device": "cpu", "engine": "fused", "probe": False}
    return Study(
        Task(build_model, small_mnist),
        SearchSpace([16, 64, 256], (1e-5, 1e-2)),
        goal,
        name="small",
        storage=str(folder / "studies.db"),
        options=Options(**(defaults | options)),  # type: ignore[arg-type]
    )


def plain(folder: Path, name: str = "small") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/studies.db")


@pytest.mark.slow
def test_a_study_of_time_ends_trials_at_the_target_and_holds_seconds(tmp_path: Path) -> None:
    """A first session reaches nothing and says so; a second one goes on, and its trials stop where they get there."""
    goal = Goal("time", epochs=5, target=TARGET)
    study_in(tmp_path, goal, prune=False).run(Budget(trials=1), tries=[Configuration(16, 1e-5)])
    without = study_in(tmp_path, goal).report()
    assert without.at_target is not None and without.advice is None and without.recommendation is None
    assert "No trial reached 60% validation accuracy within 5 epochs: nothing to recommend." in headline(without)
    assert "accuracy was still improving, more epochs may reach it." in headline(without)

    with pytest.raises(StudyMismatch, match=r"time to 60% accuracy within 5 epochs; .* time to 70% accuracy"):
        study_in(tmp_path, Goal("time", epochs=5, target=0.7)).run(Budget(trials=4))
    tries = [Configuration(16, 0.003), Configuration(64, 0.003)]
    report = study_in(tmp_path, goal, prune=False).run(Budget(trials=4), tries=tries)
    study = plain(tmp_path)
    assert study.directions == [StudyDirection.MINIMIZE] and study.metric_names == ["seconds_to_target"]
    missed, *others = study.trials
    assert missed.state.name == "PRUNED" and missed.values is None and len(missed.intermediate_values) == 5
    assert missed.user_attrs["target_not_reached_in_seconds"] > 0
    reached = [trial for trial in others if trial.state.name == "COMPLETE"]
    assert len(others) == 3 and reached[:2] == others[:2]
    for trial in reached:
        *before, last = trial.intermediate_values.values()
        assert last >= TARGET and all(accuracy < TARGET for accuracy in before) and len(before) < 4
        # Without a probe, the median of its own epochs.
        assert 0 < trial.value <= trial.user_attrs["train_seconds"] * 2
    assert study.best_value == min(trial.value for trial in reached)

    assert report.at_target is not None and report.advice is not None and report.recommendation is not None
    best = report.advice.recommended
    assert best.low <= best.mean <= best.high and best.trial in {trial.number for trial in reached}
    assert headline(report).startswith(f"Use batch size {best.batch_size} with learning rate")
    assert "60% validation accuracy expected after" in advice_sentences(report)[0]


@pytest.mark.slow
def test_a_study_of_both_has_two_values_and_a_front(tmp_path: Path) -> None:
    options = ["--goal", "pareto", "--epochs", "2", "--trials", "5", "--study", "both"]
    done = run_command([*SCRIPT, *SMALL, *options], tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    study = plain(tmp_path, "both")
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(study.trials) == 5 and complete
    for trial in complete:
        accuracy, seconds = trial.values
        assert accuracy == trial.intermediate_values[2] == trial.user_attrs["value"]
        assert seconds > 0
    assert {trial.number for trial in study.best_trials} <= {trial.number for trial in complete}
    assert (
        "Pareto front: no other batch size is expected to be both faster and better"
        in done.stdout.split("Use batch")[0]
    )
    assert "Use batch size" in done.stdout
    front = read_report(str(tmp_path / "studies.db"), "both").front
    assert [row.seconds for row in front] == sorted(row.seconds for row in front)
    assert [row.mean for row in front] == sorted(row.mean for row in front)


def ledger_of(folder: Path, goal: Goal) -> Ledger:
    database = open_database(str(folder / "studies.db"), create=True)
    ledger = Ledger(database, found_or_made(database, "mnist", kind_of(goal, Metric()).directions))
    stamp_if_unmade(ledger, stamp_of(goal))
    ledger.add_machine(MACHINE, "fused")
    return ledger


def stamp_of(goal: Goal) -> Stamp:
    return Stamp(SPACE, goal, STAMP.program, seed=3, search="tpe")


def capacity_of(machine: str, seconds_per_epoch: float | None = None) -> Capacity:
    capacity = Capacity([16, 64, 256], None, machine=machine)
    if seconds_per_epoch is not None:
        capacity.record_step_times([StepTime(16, seconds_per_epoch / 1000, 0.0, 0.0, 3)], 16_000)
    return capacity


def test_seconds_are_those_of_the_machine_that_worked_on_the_study_first(tmp_path: Path) -> None:
    """Another one, ten times as fast, trains the second trial: its value is what the first machine would have taken."""
    goal = Goal("time", epochs=4, target=0.9)
    ledger = ledger_of(tmp_path, goal)
    first = Ending(ledger, stamp_of(goal), capacity_of(MACHINE.fingerprint, 2.0))
    assert ledger.study.user_attrs[REFERENCE] == MACHINE.fingerprint and first.elsewhere is None
    number = begin(ledger, 16)
    ledger.add_epoch(number, MACHINE, epoch(1, 0.8), 0.0)
    ledger.add_epoch(number, MACHINE, epoch(2, 1.0), 0.0)
    assert [first.over(epoch(at, accuracy)) for at, accuracy in [(1, 0.8), (2, 1.0), (4, 0.5)]] == [False, True, True]
    end = first.of(number, 16, epoch(2, 1.0))
    assert (end.state, end.cost_to_target) == ("complete", pytest.approx(1.5 * 2.0))
    ledger.end(number, end.how)

    fast = Ending(ledger, stamp_of(goal), capacity_of("another", 0.2))
    assert fast.elsewhere is not None
    number = begin(ledger, 16)
    ledger.add_epoch(number, MACHINE, epoch(1, 0.9, train_seconds=0.2), 0.0)
    assert fast.of(number, 16, epoch(1, 0.9)).cost_to_target == pytest.approx(2.0, rel=0.2)


def test_a_trial_that_was_about_to_be_pruned_when_its_process_died_can_still_be_the_best(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, Goal("time", epochs=4, target=0.9))
    number = begin(ledger, 16)
    ledger.add_epoch(number, MACHINE, epoch(1, 0.8), 0.0)
    key = trial_id_of(plain(tmp_path, "mnist").trials[number])
    ledger.database.storage.set_trial_system_attr(key, constraint_key(NO_VALUE), 0.5)
    ledger.complete(number, 3.0)
    assert plain(tmp_path, "mnist").best_trial.number == number


def test_a_target_missed_has_no_value_but_a_note_and_how_far_it_was(tmp_path: Path) -> None:
    goal = Goal("time", epochs=2, target=0.9)
    ledger = ledger_of(tmp_path, goal)
    number = begin(ledger, 16)
    for at, accuracy in enumerate((0.75, 0.5), start=1):
        ledger.add_epoch(number, MACHINE, epoch(at, accuracy), 0.0)
    end = Ending(ledger, stamp_of(goal), capacity_of(MACHINE.fingerprint)).of(number, 16, epoch(2, 0.5))
    assert (end.state, end.note) == ("pruned", NOT_REACHED)
    ledger.end(number, end.how)
    trial = plain(tmp_path, "mnist").trials[number]
    assert trial.values is None and trial.constraints == {"no_value": pytest.approx(0.15)}
    assert trial.user_attrs["target_not_reached_in_seconds"] == 4.0
    assert read_trials(ledger.study, ledger.records)[number].note == NOT_REACHED


@pytest.mark.parametrize("goal", [Goal("time", epochs=2, target=0.99), Goal("pareto", epochs=2)], ids=lambda g: g.kind)
def test_optunas_search_takes_no_curve_of_accuracy_for_a_value(tmp_path: Path, goal: Goal) -> None:
    """TPE ranks what was pruned by its last reported value; here that would be upside down, or of two values' one."""
    ledger, rates = ledger_of(tmp_path, goal), [0.01, 0.02, *[1e-4] * 8, 0.015]
    ending = Ending(ledger, stamp_of(goal), capacity_of(MACHINE.fingerprint))
    for rate in rates:
        number, accuracy = begin(ledger, 64, rate), 0.9 if rate > 1e-3 else 0.1
        for at in (1, 2):
            ledger.add_epoch(number, MACHINE, epoch(at, accuracy), 0.0)
        if rate == 0.02:
            ledger.diverge(number)
        else:
            ledger.end(number, ending.of(number, 64, epoch(2, accuracy)).how)
    search = OptunaSearch(
        ledger.study,
        SPACE,
        search="tpe",
        seed=0,
        max_epochs=2,
        budget_left=lambda: True,
        prune=False,
        met=kind_of(goal, Metric()).view(None, Power()).met,
    )
    step = search.next()
    assert step is not None
    if goal.kind == "time":
        assert step.learning_rate > 2e-3


def finished_study(folder: Path) -> str:
    """A study of accuracy whose middle batch size is at 0.85 soonest, and whose largest never is."""
    ledger = ledger_of(folder, Goal(epochs=3))
    for size, seconds, accuracies in [
        (16, 4.0, (0.8, 0.9, 0.95)),
        (64, 1.0, (0.8, 0.9, 0.92)),
        (256, 0.5, (0.4, 0.5, 0.6)),
    ]:
        number = begin(ledger, size)
        for at, accuracy in enumerate(accuracies, start=1):
            ledger.add_epoch(number, MACHINE, epoch(at, accuracy, train_seconds=seconds), 0.0)
        ledger.complete(number, accuracies[-1])
    ledger.release()
    return str(folder / "studies.db")


def test_a_finished_study_of_accuracy_answers_for_time_and_for_both(tmp_path: Path) -> None:
    storage = finished_study(tmp_path)
    accurate, soon = read_report(storage), read_report(storage, goal="time", target=0.85)
    assert accurate.recommendation is not None and accurate.recommendation.batch_size == 16
    assert soon.recommendation is not None and soon.at_target is not None and soon.advice is not None
    assert soon.goal == {"kind": "time", "epochs": 3, "target": 0.85}
    best = soon.advice.recommended
    assert best.batch_size == 64 and best.low < 1.5 < best.high
    assert soon.at_target.reached == [16, 64]
    assert [row.batch_size for row in read_report(storage, goal="pareto").front] == [256, 64, 16]

    said = CliRunner().invoke(batchopt, ["report", "--storage", storage, "--goal", "time", "--target", "85%"]).output
    assert "Use batch size 64" in said and "85% validation accuracy expected after" in said
    assert "not reached; 60.00%" in said
    alone = CliRunner().invoke(batchopt, ["report", "--storage", storage, "--target", "0.85"]).output
    assert "Use batch size 16" in alone and "Fastest to reach 85%: batch size 64" in alone
    with pytest.raises(InvalidInput, match="goal time needs a target"):
        read_report(storage, goal="time")


def test_seconds_to_a_target_are_those_of_the_machine_where_it_was_measured(tmp_path: Path) -> None:
    """Trained at 4 s an epoch with batch size 16 and at 1 s with 64; there, each takes 10 s, and both need 1.5."""
    trials = read_study(finished_study(tmp_path))
    goal = Goal("time", epochs=3, target=0.85)
    _, advice = target_answer(trials, SPACE, goal, Metric(), seconds_per_epoch=lambda size: 10.0)
    assert advice is not None
    assert advice.recommended.mean == pytest.approx(15.0, rel=0.2)


def test_a_target_that_no_trial_reached_names_the_nearest_and_whether_it_still_rose(tmp_path: Path) -> None:
    storage = finished_study(tmp_path)
    report = read_report(storage, goal="time", target=0.99)
    assert report.advice is None and report.at_target is not None and report.at_target.nearest is not None
    nearest = report.at_target.nearest
    assert (nearest.value, nearest.batch_size, nearest.epochs, nearest.rising) == (0.95, 16, 3, True)


def test_a_process_that_died_between_the_target_and_the_end_has_that_epoch_trained_once_more(tmp_path: Path) -> None:
    goal = Goal("time", epochs=5, target=0.9)
    ledger = ledger_of(tmp_path, goal)
    number = begin(ledger, 16)
    for at, accuracy in enumerate((0.8, 0.85, 0.95), start=1):
        ledger.add_epoch(number, MACHINE, epoch(at, accuracy), 0.0)
    record = read_trials(ledger.study, ledger.records)[number]
    trial = as_trial(record, held=False, max_epochs=5, target=Metric().target(goal.target))
    assert (trial.state, trial.epochs) == ("paused", 2)
