"""The main job as a user meets it: real scripts, real MNIST, real signals, the database read back by plain Optuna."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import sqlalchemy as sa
from batchopt import Budget, Configuration, Dataset, Goal, Options, SearchSpace, Study, Task, powers_of_two
from batchopt.datasets import load_mnist
from batchopt.errors import StudyMismatch, TaskFailed
from batchopt.events import Event, Opened, Probing, Trained, TrialEnded
from batchopt.store.tables import epochs_table
from commands import on_terminal, run_command, worker_processes
from mnist import build_model

STUDIES = Path(__file__).parents[2] / "studies"
SMALL = ["--train-examples", "2000", "--batch-sizes", "32..512", "--engine", "fused", "--device", "cpu", "--no-probe"]


def script(folder: Path, *options: str, name: str = "mnist.py") -> list[str]:
    return [sys.executable, str(STUDIES / name), "--storage", str(folder / "studies.db"), *SMALL, *options]


def run(folder: Path, *options: str, name: str = "mnist.py") -> subprocess.CompletedProcess[str]:
    return run_command(script(folder, *options, name=name)[1:], folder, timeout=240)


def plain(folder: Path, study: str = "mnist") -> optuna.Study:
    """The study as Optuna alone sees it."""
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder}/studies.db")


def small_mnist(path: str | None) -> Dataset:
    images, labels = load_mnist().train
    return Dataset(train=(images[:1000], labels[:1000]), validation=(images[1000:1500], labels[1000:1500]))


def study_in(folder: Path, build: Any = build_model, goal: Goal | None = None, **options: Any) -> Study:
    defaults = {"device": "cpu", "engine": "fused", "prune": False, "probe": False}
    return Study(
        Task(build, small_mnist),
        SearchSpace([16, 64, 256], (1e-3, 1e-1)),
        goal or Goal(epochs=2),
        name="small",
        storage=str(folder / "studies.db"),
        options=Options(**(defaults | options)),
    )


def curves(folder: Path, study: str = "small") -> list[tuple[dict[str, Any], dict[int, float]]]:
    return [(trial.params, trial.intermediate_values) for trial in plain(folder, study).trials]


def test_the_main_job_searches_trains_keeps_and_recommends(tmp_path: Path) -> None:
    """What the JSON says is what the database holds, and a second call says that it is done."""
    done = run(tmp_path, "--trials", "4", "--epochs", "2", "--try", "64:0.003", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "trial   0" in done.stderr
    study = plain(tmp_path)
    assert sum(report["trials"].values()) == len(study.trials) == 4
    assert study.trials[0].params == {"batch_size": 64, "learning_rate": 0.003}
    assert all(trial.params["batch_size"] in (32, 64, 128, 256, 512) for trial in study.trials)

    # With so few trials what is recommended may be a rate between those that were trained; then that is said.
    advice, trained = report["recommendation"], report["recommendation"]["trial"]
    best = study.best_trial if trained is None else study.trials[trained]
    if trained is None:
        assert (advice["value"], advice["train_seconds"]) == (None, None)
    else:
        params = best.params["batch_size"], best.params["learning_rate"]
        assert (advice["batch_size"], advice["learning_rate"]) == params
        assert advice["value"] == best.value == best.user_attrs["value"]
        assert advice["train_seconds"] == pytest.approx(best.user_attrs["train_seconds"])
    assert 0.5 < best.value < 1
    assert advice["low"] < advice["expected"] < advice["high"]
    assert {"study", "goal", "storage", "machine", "trials", "by_batch_size", "elapsed_seconds"} <= set(report)
    row = report["by_batch_size"][0]
    names = {"batch_size", "learning_rate", "value", "seconds_per_epoch", "examples_per_second", "trials"}
    assert names <= set(row)

    with sa.create_engine(f"sqlite:///{tmp_path}/studies.db").connect() as connection:
        epochs = connection.execute(sa.select(epochs_table).order_by(epochs_table.c.epoch)).mappings().all()
    mine = [epoch for epoch in epochs if epoch["trial_id"] == best._trial_id]
    assert {epoch["epoch"]: epoch["value"] for epoch in mine} == best.intermediate_values
    assert all(epoch["train_seconds"] > 0 and epoch["evaluation_seconds"] > 0 for epoch in mine)
    assert mine[0]["steps"] == -(-2000 // best.params["batch_size"])

    again = run(tmp_path, "--trials", "4", "--epochs", "2")
    assert again.returncode == 0, again.stderr
    assert "4 trials finished" in again.stdout
    assert "ended: the trials of this study are used up" in again.stdout
    assert f"Use batch size {advice['batch_size']} " in again.stdout
    said = "No trial was trained to the end with exactly this learning rate" in " ".join(again.stdout.split())
    assert said == (trained is None)
    assert len(plain(tmp_path).trials) == 4


# Our own search weighs measured seconds, which no two sessions share; cutting it is tested on fixed ones.
INTERRUPTED = ["--search", "tpe", "--trials", "3", "--epochs", "12", "--no-pruning", "--seed", "3"]


def interrupted_and_resumed(folder: Path) -> None:
    """Ctrl-C while a trial trains: exit code 130 and nothing held; the same command again goes on to the end."""
    started = subprocess.Popen(script(folder, *INTERRUPTED), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    while not started.stdout.readline().startswith("trial   1"):
        assert started.poll() is None
    time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 130
    assert said.startswith("interrupted; ") and said.count("\n") == 1
    states = [trial.state.name for trial in plain(folder).trials]
    assert states[:2] == ["COMPLETE", "COMPLETE"]
    assert "RUNNING" in states
    with sa.create_engine(f"sqlite:///{folder}/studies.db").connect() as connection:
        assert connection.execute(sa.text("select count(*) from batchopt_leases")).scalar() == 0

    resumed = run(folder, *INTERRUPTED)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 to be taken up again" in resumed.stdout
    assert [trial.state.name for trial in plain(folder).trials] == ["COMPLETE"] * 3


def test_an_interrupted_study_holds_nothing_and_is_resumed(tmp_path: Path) -> None:
    interrupted_and_resumed(tmp_path)


@pytest.mark.slow
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """The same trials with the same curves as of a study that was left alone."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert run(whole, *INTERRUPTED).returncode == 0
    interrupted_and_resumed(parts)
    for (params, values), (reference_params, reference) in zip(
        curves(parts, "mnist"), curves(whole, "mnist"), strict=True
    ):
        assert params == reference_params
        assert values == pytest.approx(reference, abs=0.01)


@pytest.mark.parametrize(
    "killed", ["parent", *(pytest.param(killed, marks=pytest.mark.slow) for killed in ("worker", "both"))]
)
def test_a_study_that_is_killed_loses_no_finished_trial(tmp_path: Path, killed: str) -> None:
    """Signal 9: of the parent, and the next call adopts the trial at once, under its number; of the worker, and the
    same call goes on; of both in the same instant."""
    options = ["--trials", "3", "--epochs", "40", "--no-pruning"]
    started = subprocess.Popen(script(tmp_path, *options), stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    while not started.stdout.readline().startswith("trial   0"):
        assert started.poll() is None
    workers = worker_processes(started.pid)
    assert len(workers) == 1
    for process in {"parent": [started], "worker": workers, "both": [started, *workers]}[killed]:
        process.kill()
    said, _ = started.communicate(timeout=120)
    first = plain(tmp_path).trials[0]
    if killed == "worker":
        assert started.returncode == 0
        assert "SIGKILL; it is resumed" in said
    else:
        assert started.returncode == -signal.SIGKILL
        resumed = run(tmp_path, *options)
        assert resumed.returncode == 0, resumed.stderr
    trials = plain(tmp_path).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert (trials[0].params, trials[0].value) == (first.params, first.value)
    assert [trial.number for trial in trials] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["terminate", "hang-up"]
)
def test_a_study_that_is_told_to_end_lets_its_trial_go_and_is_resumed(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    options = ["--trials", "2", "--epochs", "40", "--no-pruning"]
    started = subprocess.Popen(script(tmp_path, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    while not started.stdout.readline().startswith("trial   0"):
        assert started.poll() is None
    time.sleep(0.2)
    started.send_signal(number)
    started.communicate(timeout=30)
    assert started.returncode == exit_code
    assert [trial.state.name for trial in plain(tmp_path).trials] == ["COMPLETE", "RUNNING"]
    with sa.create_engine(f"sqlite:///{tmp_path}/studies.db").connect() as connection:
        assert connection.execute(sa.text("select count(*) from batchopt_leases")).scalar() == 0
    resumed = run(tmp_path, *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 to be taken up again" in resumed.stdout
    assert [trial.state.name for trial in plain(tmp_path).trials] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_another_question_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """Space, goal, seed, and then the program itself: each refusal says what differs and what to do."""
    study_in(tmp_path).run(Budget(trials=1))
    other = study_in(tmp_path)
    other._space = SearchSpace([16, 64, 512], (1e-3, 1e-1))
    with pytest.raises(StudyMismatch, match=r"batch sizes 16 to 256.*asks for .* 16 to 512.*--study another-name"):
        other.run(Budget(trials=2))
    with pytest.raises(StudyMismatch, match="after 2 epochs; this script asks for accuracy after 3 epochs"):
        study_in(tmp_path, goal=Goal(epochs=3)).run(Budget(trials=2))
    with pytest.raises(StudyMismatch, match="seed 0; this script asks for 7"):
        study_in(tmp_path, seed=7).run(Budget(trials=2))

    def wider(learning_rate: float) -> Any:
        import keras
        from keras.layers import Dense, Flatten

        model = keras.Sequential([keras.Input((28, 28)), Flatten(), Dense(64, "relu"), Dense(10, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    with pytest.raises(StudyMismatch, match="was trained with another model"):
        study_in(tmp_path, wider).run(Budget(trials=2))
    with pytest.raises(StudyMismatch, match="train examples 1000 and not 500"):
        study_in(tmp_path, train_examples=500).run(Budget(trials=2))
    assert len(plain(tmp_path, "small").trials) == 1


@pytest.mark.slow
def test_the_users_own_error_stops_the_study_and_gives_the_trial_back(tmp_path: Path) -> None:
    def fragile(learning_rate: float) -> Any:
        if learning_rate == 0.05:
            raise ValueError("a bug of my own")
        return build_model(learning_rate)

    tries = [Configuration(16, 0.01), Configuration(64, 0.05)]
    with pytest.raises(TaskFailed, match="a bug of my own"):
        study_in(tmp_path, fragile).run(Budget(trials=3), tries=tries)
    assert [trial.state.name for trial in plain(tmp_path, "small").trials] == ["COMPLETE", "RUNNING"]
    report = study_in(tmp_path).run(Budget(trials=3), tries=tries)
    assert report.trials == {"complete": 3}


@pytest.mark.slow
def test_a_diverged_trial_is_pruned_with_a_note_and_never_the_best(tmp_path: Path) -> None:
    def hot(learning_rate: float) -> Any:
        return build_model(1e38 if learning_rate > 0.05 else learning_rate)

    events: list[Event] = []
    report = study_in(tmp_path, hot).run(
        Budget(trials=2), tries=[Configuration(16, 0.06), Configuration(16, 0.01)], listener=events.append
    )
    diverged, sound = plain(tmp_path, "small").trials
    assert (diverged.state.name, diverged.user_attrs["diverged"]) == ("PRUNED", True)
    assert sound.state.name == "COMPLETE"
    assert report.recommendation is not None
    assert report.recommendation.trial == 1
    assert [event.note for event in events if isinstance(event, TrialEnded)] == ["diverged", ""]


@pytest.mark.slow
def test_a_worker_killed_in_mid_trial_is_replaced_and_the_trial_ends_as_it_would(tmp_path: Path) -> None:
    """Signal 9 after the first epoch; the trial keeps its number and its curve."""
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    for folder in (reference, killed):
        folder.mkdir()
    tries = [Configuration(16, 0.01)]
    goal = Goal(epochs=40)
    study_in(reference, goal=goal).run(Budget(trials=1), tries=tries)

    struck = []

    def strike(event: Event) -> None:
        if isinstance(event, Trained) and not struck:
            struck.extend(child.pid for child in worker_processes())
            for pid in struck:
                os.kill(pid, signal.SIGKILL)

    study_in(killed, goal=goal).run(Budget(trials=1), tries=tries, listener=strike)
    assert struck
    (_, values), (_, expected) = curves(killed)[0], curves(reference)[0]
    assert values == pytest.approx(expected, abs=0.02)
    assert plain(killed, "small").trials[0].state.name == "COMPLETE"


@pytest.mark.slow
def test_two_workers_share_a_study(tmp_path: Path) -> None:
    events: list[Event] = []
    report = study_in(tmp_path, workers=2, prune=True, goal=Goal(epochs=4)).run(
        Budget(trials=8), listener=events.append
    )
    assert sum(report.trials.values()) == 8
    assert set(report.trials) <= {"complete", "pruned"}
    ended = [event.trial for event in events if isinstance(event, TrialEnded)]
    assert sorted(ended) == list(range(8))


@pytest.mark.slow
def test_a_time_budget_ends_the_study_and_leaves_nothing_running(tmp_path: Path) -> None:
    report = study_in(tmp_path, goal=Goal(epochs=400)).run(Budget(trials=None, seconds=3.0))
    assert "running" not in report.trials
    assert report.elapsed_seconds >= 3.0
    again = study_in(tmp_path, goal=Goal(epochs=400)).run(Budget(trials=None, seconds=3.0))
    assert again.trials == report.trials


def test_a_plan_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    planned = run(tmp_path, "--plan", "--trials", "7")
    assert planned.returncode == 0, planned.stderr
    assert "would    train 7 more trials; nothing has been written" in planned.stdout
    assert "5 batch sizes 32 to 512" in planned.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_full_batch_to_one_sample_are_in_reach(tmp_path: Path) -> None:
    """`1..full` is the whole range, whatever the number of training examples is."""
    options = ["--batch-sizes", "1..full", "--train-examples", "300", "--epochs", "1", "--trials", "2"]
    done = run(tmp_path, *options, "--try", "1:0.001", "--try", "300:0.01", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["batch_size"] for row in json.loads(done.stdout)["by_batch_size"]] == [1, 300]


@pytest.mark.slow
def test_a_second_question_is_one_short_script(tmp_path: Path) -> None:
    done = run(tmp_path, "--trials", "1", "--epochs", "2", "--try", "64:0.003", "--json", name="mnist_cnn.py")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recommendation"]["value"] > 0.5
    lines = [line for line in (STUDIES / "mnist_cnn.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 25


@pytest.mark.slow
def test_the_live_view_shows_the_study_on_a_terminal(tmp_path: Path) -> None:
    """A pseudo-terminal, as a user would see it: machine, engine, bars, the incumbent."""
    code, text = on_terminal(script(tmp_path, "--trials", "3", "--epochs", "8", "--no-pruning"), tmp_path)
    assert code == 0
    for part in ("starting TensorFlow", "machine", "engine", "trials", "best so far", "Use batch size"):
        assert part in text, part


def test_how_far_the_probe_is_never_passes_what_it_said_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More sizes than are timed: where nothing is foreseen, the smallest are tried as well."""
    monkeypatch.setattr("batchopt.workers.probing.TIMING_SECONDS", 0.1)
    study = Study(
        Task(build_model, small_mnist),
        SearchSpace(powers_of_two(2, 512), (1e-3, 1e-1)),
        Goal(epochs=1),
        name="probed",
        storage=str(tmp_path / "studies.db"),
        options=Options(device="cpu", engine="fused"),
    )
    events: list[Event] = []
    study.run(Budget(trials=1), listener=events.append)
    said = [(event.done, event.of) for event in events if isinstance(event, Probing) and event.batch_size]
    assert len(said) > 6 and all(done < of for done, of in said)


@pytest.mark.slow
def test_a_notebook_needs_five_lines(tmp_path: Path) -> None:
    """The same job from Python: a question, a run, an answer as an object."""
    opened: list[Event] = []
    report = study_in(tmp_path).run(Budget(trials=2), listener=opened.append)
    assert report.recommendation is not None
    assert report.recommendation.batch_size in (16, 64, 256)
    assert next(event for event in opened if isinstance(event, Opened)).best is None
    assert study_in(tmp_path).report() == report
    again: list[Event] = []
    study_in(tmp_path).run(Budget(trials=2), listener=again.append)
    best = next(event for event in again if isinstance(event, Opened)).best
    ended = [event for event in opened if isinstance(event, TrialEnded)]
    assert best == max(ended, key=lambda event: event.value or 0.0)


@pytest.mark.slow
def test_a_terminal_that_is_closed_lets_the_trial_go_and_the_study_is_resumed(tmp_path: Path) -> None:
    """A window that is shut, or a line that is cut, while the live view draws: exit code 129, and nothing is held."""
    options = ["--trials", "2", "--epochs", "60", "--no-pruning"]
    master, slave = pty.openpty()
    # The terminal of a session of its own, so that the kernel tells of its end as it would tell a shell's.
    seat = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "110", "LINES": "40"}
    started = subprocess.Popen(
        [sys.executable, "-c", seat, *script(tmp_path, *options)], stdin=slave, stdout=slave, stderr=slave,
        env=environment,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"trial 1:" not in shown:
        assert select.select([master], [], [], 120)[0], shown
        shown += os.read(master, 65536)
    workers = worker_processes(started.pid)
    os.close(master)
    assert started.wait(timeout=30) == 129
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert [trial.state.name for trial in plain(tmp_path).trials] == ["COMPLETE", "RUNNING"]
    with sa.create_engine(f"sqlite:///{tmp_path}/studies.db").connect() as connection:
        assert connection.execute(sa.text("select count(*) from batchopt_leases")).scalar() == 0
    resumed = run(tmp_path, *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "1 to be taken up again" in resumed.stdout
    assert [trial.state.name for trial in plain(tmp_path).trials] == ["COMPLETE"] * 2
