"""Studies of energy in a real database, with a real session; where no device tells energy, joules are given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from batchopt import Budget, Options, SearchSpace
from batchopt.cli.batchopt import batchopt
from batchopt.errors import InvalidInput
from batchopt.events import Event, TrialEnded, ignore
from batchopt.goals.kinds import kind_of
from batchopt.machine.capacity import Capacity
from batchopt.machine.machine import Machine
from batchopt.machine.processor_energy import ProcessorMeter
from batchopt.measured import Epoch
from batchopt.question.goal import Goal
from batchopt.question.metric import Metric
from batchopt.report.answer.reading import read_study
from batchopt.report.show.advice_view import advice_sentences, headline
from batchopt.report.show.sentences import machine_sentences
from batchopt.report.show.study_report import read_report
from batchopt.search.steps import Step
from batchopt.store.stamp import Stamp
from batchopt.study.counted import check_counted
from batchopt.study.ending import NO_ENERGY
from batchopt.study.session import Session
from click.testing import CliRunner
from commands import run_command
from optuna import load_study
from optuna.study import StudyDirection
from written_study import MACHINE, PROGRAM, epoch

MNIST = str(Path(__file__).parents[2] / "studies" / "mnist.py")
METERED = dataclasses.replace(MACHINE, energy="RAPL", max_power_w=200.0)
OTHER = dataclasses.replace(METERED, device="Slide rule", processor="Slide rule")
RATE = 0.01
SPACE = SearchSpace([16, 32, 256], (RATE, RATE))
GOAL = Goal("energy", epochs=4, target=0.9)

SECONDS = {16: 4.0, 32: 2.5, 256: 1.0}
WATTS = {16: 20.0, 32: 40.0, 256: 160.0}
NEEDED = {16: 2, 32: 2, 256: 3}
"""Epochs to the target: 160 J in 8 s with batch size 16, 200 J in 5 s with 32, 480 J in 3 s with 256."""


def figures_of(batch_size: int, at: int, *, metered: bool = True) -> Epoch:
    """Exactly at the target after the epochs that it needs."""
    joules = SECONDS[batch_size] * WATTS[batch_size] if metered else None
    figures = epoch(at, 0.9 if at >= NEEDED[batch_size] else 0.45, train_seconds=SECONDS[batch_size])
    return dataclasses.replace(figures, joules=joules)


def session_in(folder: Path, goal: Goal = GOAL, *, on: Machine = METERED, listener=ignore) -> Session:  # type: ignore[no-untyped-def]
    session = Session.open(
        "small",
        str(folder / "studies.db"),
        Stamp(SPACE, goal, PROGRAM, seed=3, search="random"),
        options=Options(prune=False),
        budget=Budget(trials=6, until_known=False),
        capacity=Capacity(list(SECONDS), None, machine=on.fingerprint, max_power_w=on.max_power_w),
        listener=listener,
    )
    session.ledger.add_machine(on, "fused")
    return session


def train(session: Session, step: Step, *, on: Machine = METERED, metered: bool = True) -> None:
    for at in range(step.from_epoch + 1, step.until_epoch + 1):
        if session.tell(step.trial, on, figures_of(step.batch_size, at, metered=metered)) == "stop":
            return


def asked_for(session: Session, batch_size: int) -> Step:
    """The next step, of this batch size."""
    session.ledger.study.enqueue_trial({"batch_size": batch_size, "learning_rate": RATE})
    step = session.ask()
    assert step is not None and step.batch_size == batch_size
    return step


def studied(folder: Path, goal: Goal = GOAL, listener=ignore) -> str:  # type: ignore[no-untyped-def]
    with session_in(folder, goal, listener=listener) as session:
        for size in SECONDS:
            train(session, asked_for(session, size))
    return str(folder / "studies.db")


def test_its_values_are_joules_and_the_least_is_recommended_in_the_headline_tables_and_json(tmp_path: Path) -> None:
    heard: list[Event] = []
    storage = studied(tmp_path, listener=heard.append)
    study = load_study(study_name="small", storage=f"sqlite:///{storage}")
    assert study.directions == [StudyDirection.MINIMIZE] and study.metric_names == ["joules_to_target"]
    assert [trial.value for trial in study.trials] == pytest.approx([160.0, 200.0, 480.0])
    assert [event.note for event in heard if isinstance(event, TrialEnded)] == [
        "target with 160 J",
        "target with 200 J",
        "target with 480 J",
    ]
    report = read_report(storage)
    best = report.recommendation
    assert best is not None and headline(report) == "Use batch size 16 with learning rate 0.01."
    assert (best.batch_size, best.quantity) == (16, "joules_to_target")
    assert best.expected == pytest.approx(160, rel=0.1) and best.joules == pytest.approx(best.expected)
    assert best.seconds == pytest.approx(8, rel=0.1)
    expected = advice_sentences(report)[0]
    assert expected.startswith("90% validation accuracy expected with ") and " J (90 % interval " in expected
    assert "of training: " in expected and "% less energy than batch size 32." in expected
    said = CliRunner().invoke(batchopt, ["report", "--storage", storage, "--details"]).output
    assert "J to 90%" in said and "J/run" in said and "Energy: of all packages of the processor (RAPL)" in said
    described = json.loads(json.dumps(report.describe()))
    assert described["goal"] == {"kind": "energy", "epochs": 4, "target": 0.9, "energy_weight": 1.0}
    assert described["recommendation"]["joules"] == pytest.approx(best.joules)
    assert [row["joules"] for row in described["by_batch_size"]] == pytest.approx([160, 200, 480], rel=0.1)
    listed = CliRunner().invoke(batchopt, ["trials", "--storage", storage]).output
    assert "energy" in listed and "480 J" in listed
    assert read_study(storage)[0].describe()["joules"] == pytest.approx(160.0)


def test_time_counts_by_what_the_device_may_draw_and_alone_it_is_the_goal_time(tmp_path: Path) -> None:
    """At 200 W the three take 1600, 1000 and 600 J of time."""
    storage = studied(tmp_path, dataclasses.replace(GOAL, energy_weight=0.0))
    study = load_study(study_name="small", storage=f"sqlite:///{storage}")
    assert study.metric_names == ["cost_joules_to_target"]
    assert [trial.value for trial in study.trials] == pytest.approx([1600.0, 1000.0, 600.0])
    timed = read_report(storage)
    assert timed.recommendation is not None and timed.recommendation.batch_size == 256
    assert "expected at a cost of" in advice_sentences(timed)[0] and "draw" in advice_sentences(timed)[-1]
    for weight, size in [(0.5, 256), (0.8, 32), (1.0, 16)]:
        report = read_report(storage, energy_weight=weight)
        assert report.recommendation is not None and report.recommendation.batch_size == size
    soonest = read_report(storage, goal="time")
    assert soonest.recommendation is not None and soonest.recommendation.batch_size == 256


def test_a_study_that_is_resumed_remembers_what_was_drawn_and_a_missed_target_what_it_cost(tmp_path: Path) -> None:
    studied(tmp_path)
    with session_in(tmp_path) as session:
        step = asked_for(session, 16)
        for at in range(1, 5):
            # Not metered any more: what is known of 16 tells.
            session.tell(step.trial, METERED, epoch(at, 0.5, train_seconds=SECONDS[16]))
    trial = load_study(study_name="small", storage=f"sqlite:///{tmp_path}/studies.db").trials[-1]
    assert trial.values is None
    assert trial.user_attrs["target_not_reached_in_joules"] == pytest.approx(4 * 4.0 * 20.0)
    assert read_study(str(tmp_path / "studies.db"))[-1].note == "target not reached"


def test_joules_are_those_of_the_machine_that_worked_on_the_study_first(tmp_path: Path) -> None:
    """The other one draws ten times as much; two who share its processor know nothing of their own."""
    storage = studied(tmp_path)
    with session_in(tmp_path, on=OTHER) as session:
        step = asked_for(session, 32)
        for at in (1, 2):
            figures = dataclasses.replace(figures_of(32, at), train_seconds=0.25, joules=1000.0)
            session.tell(step.trial, OTHER, figures)
        step = asked_for(session, 16)
        for at in (1, 2):
            shared = dataclasses.replace(figures_of(16, at), joules=9e9, side_by_side=True)
            session.tell(step.trial, OTHER, shared)
    values = [trial.value for trial in load_study(study_name="small", storage=f"sqlite:///{storage}").trials]
    assert values[3:] == pytest.approx([200.0, 160.0], rel=0.1)
    assert [row.joules for row in read_report(storage, on="Abacus").by_batch_size] == pytest.approx(
        [160, 200, 480], rel=0.15
    )
    there = read_report(storage, on="Slide").recommendation
    assert there is not None and there.expected > 1000


def test_a_trial_whose_device_stopped_telling_is_no_value_and_says_so(tmp_path: Path) -> None:
    with session_in(tmp_path) as session:
        train(session, asked_for(session, 32), metered=False)
    trial = read_study(str(tmp_path / "studies.db"))[0]
    assert (trial.state, trial.note) == ("fail", NO_ENERGY)


def test_before_the_counter_has_ticked_a_device_draws_all_that_it_may(tmp_path: Path) -> None:
    """A first trial of two epochs of a millisecond; nothing is recommended by it, and the next one is a real value."""
    with session_in(tmp_path) as session:
        step = asked_for(session, 32)
        for at in (1, 2):
            session.tell(step.trial, METERED, dataclasses.replace(figures_of(32, at), joules=0.0, train_seconds=1e-3))
        values = [session.ledger.frozen(step.trial).value]
        early = read_report(str(tmp_path / "studies.db"))
        train(session, asked_for(session, 16))
    assert values == [pytest.approx(2 * 200.0 * 1e-3)]
    assert early.recommendation is None and headline(early) == (
        "90% was reached, but what that costs on Abacus is not known: nothing to recommend there."
    )
    assert read_study(str(tmp_path / "studies.db"))[1].value == pytest.approx(160.0)
    assert read_report(str(tmp_path / "studies.db")).recommendation is not None


def test_what_jobs_draw_is_heard_by_whoever_asks_next_as_what_they_take_is(tmp_path: Path) -> None:
    """A server has no machine of its own: all that its jobs tell counts, once."""
    storage = studied(tmp_path)
    stamp = Stamp(SPACE, GOAL, PROGRAM, seed=3, search="random")
    with Session.open("small", storage, stamp, budget=Budget(trials=6, until_known=False)) as session:
        assert not session.capacity.machine and not session.capacity.power.known
        assert session.ask() is not None and session.ask() is not None
        assert [session.capacity.power(size) for size in WATTS] == pytest.approx(list(WATTS.values()))


def test_energy_is_told_of_a_study_of_another_goal_and_asked_of_it_where_it_was_measured(tmp_path: Path) -> None:
    storage = studied(tmp_path, Goal(epochs=2))
    report = read_report(storage)
    assert report.recommendation is not None and report.recommendation.joules is not None
    assert any(line.startswith("Its training is expected to draw ") for line in advice_sentences(report))
    least = read_report(storage, goal="energy", target=0.9).recommendation
    assert least is not None and (least.batch_size, least.quantity) == (16, "joules_to_target")
    with pytest.raises(InvalidInput, match=r"energy weight 0\.5 is for goal energy, and this is best"):
        read_report(storage, energy_weight=0.5)


def test_where_none_was_measured_a_report_says_why_and_refuses_the_goal(tmp_path: Path) -> None:
    why = "the kernel shows no energy counter of the processor"
    silent = dataclasses.replace(MACHINE, no_energy=why)
    with session_in(tmp_path, Goal(epochs=2), on=silent) as session:
        for size in SECONDS:
            train(session, asked_for(session, size), on=silent, metered=False)
    storage = str(tmp_path / "studies.db")
    report = read_report(storage)
    assert report.recommendation is not None and report.recommendation.joules is None
    assert f"Energy was not measured: {why}." in machine_sentences(report)
    refused = CliRunner().invoke(
        batchopt, ["report", "--storage", storage, "--goal", "energy", "--target", "90%"], standalone_mode=False
    )
    assert isinstance(refused.exception, InvalidInput)
    assert str(refused.exception) == f"goal energy: Abacus, 2 cores tells no energy: {why}. Use --goal time."
    assert "energy" not in CliRunner().invoke(batchopt, ["trials", "--storage", storage]).output


@pytest.mark.parametrize(
    ("machine", "goal", "workers", "refused"),
    [
        (METERED, GOAL, None, None),
        (METERED, dataclasses.replace(GOAL, energy_weight=0.5), None, None),
        (MACHINE, Goal("time", target=0.9), 2, None),
        (dataclasses.replace(MACHINE, no_energy="no counter"), GOAL, None, "Abacus tells no energy: no counter"),
        (MACHINE, GOAL, None, "Abacus tells no energy: nobody has looked"),
        (METERED, GOAL, 2, "--workers 2: the processor counts the energy of all workers together"),
        (
            dataclasses.replace(METERED, max_power_w=None),
            dataclasses.replace(GOAL, energy_weight=0.5),
            None,
            "--energy-weight 0.5: Abacus does not say how much power it may draw",
        ),
    ],
)
def test_a_goal_that_a_machine_cannot_count_is_refused_in_one_line(
    machine: Machine, goal: Goal, workers: int | None, refused: str | None
) -> None:
    kind, options = kind_of(goal, Metric()), Options(workers=workers)
    if refused is None:
        check_counted(kind, machine, options)
        return
    with pytest.raises(InvalidInput) as error:
        check_counted(kind, machine, options)
    assert refused in str(error.value) and "\n" not in str(error.value)


ASKED = ["--goal", "energy", "--target", "60%", "--epochs", "4"]


LACKING = ProcessorMeter(watched=False).lacking()
"""Why this machine's processor does not tell its energy, where it does not: of the next two tests one is for it."""


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason="this processor tells no energy")
def test_a_real_study_on_a_processor_that_tells_its_energy_ends_with_the_least_joules(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--train-examples", "20000", "--trials", "4", "--batch-sizes", "32..512", "--json"]
    done = run_command([MNIST, *options, *ASKED], tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["recommendation"]["quantity"] == "joules_to_target" and report["recommendation"]["joules"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not LACKING, reason="this processor tells its energy")
def test_a_real_study_on_a_processor_that_tells_none_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    done = run_command(
        [MNIST, "--device", "cpu", "--train-examples", "2000", "--batch-sizes", "32..512", *ASKED],
        tmp_path,
        timeout=240,
    )
    assert done.returncode == 2 and "tells no energy: " in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_a_real_study_on_a_gpu_ends_with_the_least_joules(tmp_path: Path) -> None:
    pytest.importorskip("pynvml")
    # Epochs that last longer than the counter's tick.
    options = ["--device", "gpu", "--trials", "4", "--energy-weight", "0.5", "--batch-sizes", "8..64", "--json"]
    done = run_command([MNIST, *options, *ASKED], tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["recommendation"]["quantity"] == "cost_joules_to_target"
    assert report["recommendation"]["joules"] > 0 and report["machine"]["max_power_w"] > 50
    assert all(row["joules"] > 0 for row in report["by_batch_size"])
