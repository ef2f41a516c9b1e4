"""`batchopt tune`: real commands, as a shell starts them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from batchopt.report.answer.reading import read_study
from batchopt.report.show.study_report import read_report
from commands import BATCHOPT, Running, on_terminal, run_command

SCRIPT = """
import json, math, os, signal, sys, time
size, rate, epochs, mode, log = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
with open(log, "a") as file:
    print(os.getpid(), size, file=file)
if mode == "oom" and size > 16:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "raises":
    raise ValueError("no such file")
first, last, state = 1, epochs, None
if mode in ("paused", "forgetful", "greedy"):
    state, from_epoch, last = sys.argv[6], int(sys.argv[7]), int(sys.argv[8])
    first = 1 + (json.load(open(state))["epoch"] if os.path.exists(state) else 0)
    assert first == from_epoch + 1, (first, from_epoch)
    last += mode == "greedy"
if mode == "file":
    sys.stdout = open(sys.argv[6], "a")
for epoch in range(first, last + 1):
    if mode == "diverges" and rate > 0.02:
        print(json.dumps({"acc": -(10.0 ** (30 * epoch)), "seconds": 1.0}), flush=True)
        continue
    if mode == "slow" and not os.path.exists("fast"):
        time.sleep(0.5)
    value = (1 - 0.5**epoch) / (1 + abs(math.log10(rate) + 2) + size / 1000)
    if mode == "paused":
        json.dump({"epoch": epoch}, open(state, "w"))
    print("some words of the framework's own")
    print(f"epoch {epoch}: acc={value}" if mode == "words" else json.dumps({"acc": value, "seconds": 1.0}), flush=True)
    if mode == "long":
        # What has no hope is slow, so that it is met in the middle.
        time.sleep(0.7 if epoch in (2, 4) and value < 0.5 else 0.1)
if mode == "long":
    with open(log, "a") as file:
        print("ended", os.getpid(), file=file)
"""


STATE = ("{checkpoint}", "{from_epoch}", "{until_epoch}")


def tune(folder: Path, mode: str, *options: str, arguments: Sequence[str] = ()) -> list[str]:
    (folder / "train.py").write_text(SCRIPT)
    question = ["--storage", f"sqlite:///{folder}/s.db", "--batch-sizes", "16..64", "--metric", "acc", "--epochs", "3"]
    command = [sys.executable, "train.py", "{batch_size}", "{learning_rate}", "{epochs}", mode, "log", *arguments]
    more = ["--examples", "1000", "--trials", "4", "--lease", "5", *options]
    return ["batchopt", "tune", *question, *more, "--", *command]


def run(folder: Path, mode: str, *options: str, arguments: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return run_command(tune(folder, mode, *options, arguments=arguments), folder, timeout=90)


@pytest.mark.parametrize(
    ("mode", "options"), [("json", ()), pytest.param("words", ("--read", r"acc=(\S+)"), marks=pytest.mark.slow)]
)
def test_a_command_is_a_study(tmp_path: Path, mode: str, options: tuple[str, ...]) -> None:
    done = run(tmp_path, mode, "--workers", "2", *options)
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert [(trial.state, len(trial.epochs)) for trial in trials] == [("complete", 3)] * len(trials)
    assert "batch size" in done.stdout


def test_a_study_of_a_command_is_shown_on_a_terminal(tmp_path: Path) -> None:
    code, text = on_terminal([*BATCHOPT, *tune(tmp_path, "json", "--workers", "2")[1:]], tmp_path)
    assert code == 0, text
    for part in ("study    tune in sqlite:///", "command  ", "trials", "of 3 epochs", "best so far", "Use batch size"):
        assert part in text, part
    # The same again, which has nothing left to do.
    code, text = on_terminal([*BATCHOPT, *tune(tmp_path, "json")[1:]], tmp_path)
    assert code == 0 and "4 trials finished, 4 in all" in text


def test_out_of_memory_is_knowledge(tmp_path: Path) -> None:
    done = run(tmp_path, "oom")
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert {trial.note for trial in trials if trial.batch_size > 16} <= {"out of memory"}
    assert any(trial.state == "complete" for trial in trials)


def test_a_value_may_be_as_large_as_a_number_can_be(tmp_path: Path) -> None:
    """A loss that diverges and is finite is no damage, and does not make whatever is near it uncertain."""
    done = run(tmp_path, "diverges", "--trials", "8", "--learning-rates", "0.001..1")
    assert done.returncode == 0, done.stderr
    storage = f"sqlite:///{tmp_path}/s.db"
    assert min(trial.value for trial in read_study(storage) if trial.value is not None) < -1e80
    for command in (["doctor"], ["trials"], ["report", "--details"], ["report", "--html", str(tmp_path / "page.html")]):
        done = run_command(["batchopt", *command, "--storage", storage], tmp_path)
        assert done.returncode == 0, done.stderr
    advice = read_report(storage).advice
    assert advice is not None
    recommended = advice.recommended
    assert recommended.high - recommended.low < 10
    assert run(tmp_path, "json", "--study", "another").returncode == 0


def test_a_command_killed_by_signal_9_is_tried_three_times(tmp_path: Path) -> None:
    done = run(tmp_path, "killed", "--trials", "1")
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    (trial,) = read_study(f"sqlite:///{tmp_path}/s.db")
    assert trial.state == "fail" and "signal 9" in trial.note, done.stderr


def test_a_command_that_raises_stops_the_study_with_its_own_words_and_may_be_mended(tmp_path: Path) -> None:
    done = run(tmp_path, "raises")
    assert done.returncode == 1
    assert "ValueError: no such file" in done.stderr and "batchopt/study" not in done.stderr
    # Nothing was told yet, so a mended command takes its place, and another question does not.
    refused = run(tmp_path, "json", "--seed", "1")
    assert refused.returncode == 2 and "seed 0 and not 1" in refused.stderr
    done = run(tmp_path, "json")
    assert done.returncode == 0, done.stderr
    assert {trial.state for trial in read_study(f"sqlite:///{tmp_path}/s.db")} == {"complete"}
    refused = run(tmp_path, "raises")
    assert refused.returncode == 2 and "command [" in refused.stderr


def test_an_accuracy_in_percent_is_refused_when_it_is_told(tmp_path: Path) -> None:
    asked = tune(tmp_path, "json")
    percent = [sys.executable, "-c", "print('{\"acc\": 97.1}')", "{batch_size}", "{learning_rate}"]
    done = run_command([*asked[: asked.index("--") + 1], *percent], tmp_path, timeout=90)
    assert done.returncode == 2 and "acc 97.1: an accuracy is in 0 to 1. Tell 0.971" in done.stderr
    assert all(not trial.epochs for trial in read_study(f"sqlite:///{tmp_path}/s.db"))


def test_more_values_than_epochs_are_said(tmp_path: Path) -> None:
    """A loss within an epoch that --read finds too, or a test at the end: nobody else would see what counts."""
    asked = tune(tmp_path, "json", "--trials", "2")
    told = "import json; [print(json.dumps({'acc': 0.5})) for _ in range(5)]"
    command = [sys.executable, "-c", told, "{batch_size}", "{learning_rate}"]
    done = run_command([*asked[: asked.index("--") + 1], *command], tmp_path, timeout=90)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("further values of the metric after 3, which is all epochs") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interrupted_study_is_resumed_by_the_same_command(tmp_path: Path, number: signal.Signals) -> None:
    process = Running(tune(tmp_path, "slow"), tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "log").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.8)
    process.signal(number)
    assert process.ended(30).returncode == (143 if number == signal.SIGTERM else -9)
    (tmp_path / "fast").touch()
    done = run(tmp_path, "slow")
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert [(trial.state, len(trial.epochs)) for trial in trials] == [("complete", 3)] * 4


def test_what_cannot_be_a_command_is_refused_in_a_line(tmp_path: Path) -> None:
    base = tune(tmp_path, "json")
    for command, said in (
        ([], "no command"),
        (["no-such-program", "{batch_size}"], "there is no such program"),
        (["true", "{size}"], "{size}"),
        (["true", "{learning_rate}"], "{batch_size}"),
        (["true", "{batch_size}", "{checkpoint}"], "{until_epoch}"),
        (["true", "{batch_size}", "{from_epoch}"], "{checkpoint}"),
    ):
        arguments = [*base[: base.index("--") + 1], *command]
        done = run_command(arguments, tmp_path)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "s.db").exists()


def test_a_command_that_resumes_is_paused_and_goes_on_from_its_state(tmp_path: Path) -> None:
    done = run(tmp_path, "paused", "--epochs", "8", "--trials", "6", arguments=STATE)
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    # Each epoch once, though in several processes, and not all of them.
    assert all([row["epoch"] for row in trial.epochs] == list(range(1, len(trial.epochs) + 1)) for trial in trials)
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    assert len((tmp_path / "log").read_text().splitlines()) > len(trials)


@pytest.mark.parametrize(("mode", "said"), [("forgetful", "no file"), ("greedy", "goes on after epoch 2")])
def test_a_command_that_does_not_resume_as_it_says_is_told_so(tmp_path: Path, mode: str, said: str) -> None:
    done = run(tmp_path, mode, "--epochs", "8", arguments=STATE)
    assert done.returncode == 1 and said in done.stderr and "batchopt/study" not in done.stderr, done.stderr


def test_a_command_that_cannot_be_paused_is_ended_where_it_has_no_hope(tmp_path: Path) -> None:
    """Its process is killed in the middle, not only told of no more."""
    done = run(tmp_path, "long", "--epochs", "8", "--trials", "10", "--workers", "2", "--batch-sizes", "16..512")
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    epochs = {trial.number: len(trial.epochs) for trial in trials}
    stopped = [trial for trial in trials if trial.state == "pruned"]
    assert stopped and {epochs[trial.number] for trial in stopped} <= {2, 4}
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    best = max(trial.value for trial in trials if trial.value is not None)
    assert all(trial.epochs[-1]["value"] < best for trial in stopped)
    lines = (tmp_path / "log").read_text().splitlines()
    ended = {line.split()[1] for line in lines if line.startswith("ended")}
    started = [line.split()[0] for line in lines if not line.startswith("ended")]
    assert len(started) == len(trials)
    # One may come to its end while it is decided on.
    assert len(trials) - len(stopped) <= len(ended) < len(trials)


def test_results_are_read_from_a_file(tmp_path: Path) -> None:
    more = ("--results", "results-{trial}.jsonl", "--trials", "2", "--device", "cpu")
    done = run(tmp_path, "file", *more, arguments=["results-{trial}.jsonl"])
    assert done.returncode == 0, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert [(trial.state, len(trial.epochs)) for trial in trials] == [("complete", 3)] * 2


def test_further_dimensions_and_devices_reach_the_command(tmp_path: Path) -> None:
    script = """
import json, os, sys
with open("log", "a") as file:
    print(json.dumps([sys.argv[2:], os.environ["CUDA_VISIBLE_DEVICES"]]), file=file)
print(json.dumps({"acc": 1 / int(sys.argv[1])}))
"""
    (tmp_path / "train.py").write_text(script)
    question = ["--storage", "s.db", "--batch-sizes", "16,32", "--metric", "acc", "--epochs", "1", "--examples", "100"]
    space = ["--extra", "width=2..9", "--extra", "decay=1e-4..1e-2:log", "--extra", "optimizer=adam,sgd"]
    command = [sys.executable, "train.py", "{batch_size}", "{width}", "{decay}", "{optimizer}", "{device}"]
    options = ["--trials", "6", "--device", "gpu:0,3", "--quiet"]
    done = run_command(["batchopt", "tune", *question, *space, *options, "--", *command], tmp_path)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    for (width, decay, optimizer, device), seen in told:
        assert 2 <= int(width) <= 9 and 1e-4 <= float(decay) <= 1e-2 and optimizer in ("adam", "sgd")
        assert device == seen
    # A worker on each of them.
    assert {seen for _, seen in told} == {"0", "3"}
    trials = read_study(str(tmp_path / "s.db"))
    assert all(set(trial.extra) == {"width", "decay", "optimizer"} for trial in trials)


def test_a_studys_name_alone_resumes_it_and_another_question_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path, "json", "--trials", "2", "--study", "mine").returncode == 0
    base = ["batchopt", "tune", "--storage", f"sqlite:///{tmp_path}/s.db", "--study", "mine"]
    done = run_command([*base, "--trials", "4"], tmp_path)
    assert done.returncode == 0 and "resumes: " in done.stderr, done.stderr
    trials = read_study(f"sqlite:///{tmp_path}/s.db")
    assert [(trial.state, len(trial.epochs)) for trial in trials] == [("complete", 3)] * 4
    for more, said in (
        (["--epochs", "5"], "epochs 3 and not 5"),
        (["--", "rm", "{batch_size}"], "command ["),
        (["--study", "other"], "there is no study 'other' to resume"),
    ):
        refused = run_command([*base, *more], tmp_path)
        assert refused.returncode == 2 and said in refused.stderr and "Traceback" not in refused.stderr
    # A command is run from nobody else's database.
    (tmp_path / "s.db").chmod(0o666)
    refused = run_command(base, tmp_path)
    assert refused.returncode == 2 and "that others may write" in refused.stderr
