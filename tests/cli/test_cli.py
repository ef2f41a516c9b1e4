"""The command line: what is wrong is said in one line, before anything is written; what is right is said as asked."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import optuna
import pytest
from batchopt import Options
from batchopt.cli.batchopt import batchopt
from batchopt.cli.exits import _finish
from batchopt.cli.terminal import view
from batchopt.errors import BatchoptError, StorageError, StorageFailed, WorkerDied
from batchopt.events import Noted
from batchopt.study.opening import opened_ledger
from click.testing import CliRunner
from commands import run_command
from written_study import MACHINE, SPACE, STAMP, write_study

SCRIPT = [str(Path(__file__).parents[2] / "studies" / "mnist.py")]
SHORT = [*SCRIPT, "--trials", "1", "--epochs", "1"]
"""Ends soon even where what should be refused is not."""
READS_ALL = """
import sys
from batchopt.cli.batchopt import batchopt

for command in ("list", "report", "trials"):
    batchopt.main([command, "--storage", sys.argv[1], "--json"], standalone_mode=False)
print([name for name in ("tensorflow", "keras") if name in sys.modules], file=sys.stderr)
"""

Row = tuple[list[str], str, str]
"""Options; what is wrong; what to do."""

OPTIONS: list[Row] = [
    (["--batch-sizes", "0"], "--batch-sizes 0: 0 is below 1", "A batch has at least one example"),
    (["--batch-sizes", "-8"], "--batch-sizes -8: -8 is below 1", "A batch has at least one example"),
    (["--batch-sizes", "abc"], "--batch-sizes abc: 'abc' is not a whole number", "Write 8..1024"),
    (["--batch-sizes", ""], "--batch-sizes : '' is not a whole number", "Write 8..1024"),
    (["--batch-sizes", "64..8"], "--batch-sizes 64..8: reversed range", "Write the smaller one first"),
    (["--learning-rates", "0"], "--learning-rates 0", "above 0"),
    (["--learning-rates", "-1"], "--learning-rates -1", "above 0"),
    (["--learning-rates", "nan"], "--learning-rates nan", "finite and above 0"),
    (["--learning-rates", "inf"], "--learning-rates inf", "finite and above 0"),
    (["--learning-rates", "1e-1..1e-4"], "--learning-rates 1e-1..1e-4: reversed range", "Write the smaller one first"),
    (["--trials", "0"], "--trials 0", "give a whole number of at least 1"),
    (["--trials", "abc"], "'--trials': 'abc'", "integer"),
    (["--epochs", "0"], "epochs 0", "give a whole number of at least 1"),
    (["--goal", "speed"], "'--goal'", "'best', 'time', 'pareto', 'energy'"),
    (["--goal", "time"], "goal time needs a target", "for example 0.97"),
    (["--target", "0.97"], "target 0.97 is for goals time and energy, and this is best", "Leave one of them out"),
    (["--goal", "time", "--target", "150%"], "target 1.5: accuracy is in 0 to 1", "Write 0.97 or 97%"),
    (["--time-budget", "soon"], "--time-budget soon", "write 90s, 10m, or 1h30m"),
    (["--time-budget", "0s"], "--time-budget 0s", "write 90s, 10m, or 1h30m"),
    (["--search", "best"], "'--search'", "'auto', 'tpe', 'gp', 'random', 'grid', 'qmc'"),
    (["--engine", "warp"], "'--engine'", "'fused-xla', 'fused', 'fit'"),
    (["--device", "tpu"], "--device tpu", "write auto, cpu, gpu, or gpu:0,1"),
    (["--workers", "0"], "--workers 0", "give a whole number of at least 1"),
    (["--memory-limit", "much"], "--memory-limit much", "write 2GiB, 512MiB"),
    (["--memory-limit", "0"], "--memory-limit 0", "write 2GiB, 512MiB"),
    (["--seed", "-1"], "--seed -1", "give a whole number from 0"),
    (["--confirm", "--confirm-seeds", "1"], "--confirm-seeds 1: give at least 2", "an interval needs as many"),
    (["--save-model", "best.h5"], "model file best.h5: Keras writes files whose names end in .keras", "Name one so"),
    (["--save-model", "notes.keras"], "notes.keras exists already", "replace it with --force"),
    (
        ["--save-model", "best.keras", "--ray", "auto"],
        "--ray auto: a model is trained and written on",
        "`batchopt train`",
    ),
    (["--nosuch"], "No such option '--nosuch'", ""),
    (["--try", "48:0.01"], "--try 48:0.01: batch size 48 is not in the search space", "64"),
    (["--try", "64:9"], "--try 64:9: learning rate 9 is outside the search space, 0.0001 to 0.1", ""),
    (["--try", "junk"], "--try junk", "write batch size and learning rate as 32:0.001"),
    (["--storage", "nowhere/studies.db"], "the folder nowhere does not exist", "Make it first"),
    (["--storage", "folder"], "database folder is a folder", "for example folder/studies.db"),
    (["--storage", "notes.txt"], "notes.txt is not an SQLite database", "Choose another --storage"),
    (["--storage", "other.db"], "other.db holds other tables (invoices)", "Choose another --storage"),
    (["--storage", "version.db"], "version.db has batchopt tables of version 99", "or another --storage"),
    (["--storage", "mnist.db"], "study 'mnist' in sqlite:///mnist.db was not made by batchopt", "--study another-name"),
    (["--storage", "good.db"], "good.db searches 3 batch sizes 16 to 256", "Use --study another-name"),
    (["--storage", "nosuch://host/studies"], "--storage nosuch://host/studies", "'nosuch'"),
]
"""Said before a worker is started."""

COMMANDS: list[Row] = [
    (["report", "--storage", "missing.db"], "missing.db does not exist", "Check --storage"),
    (["list", "--storage", "folder"], "database folder is a folder", "Give the path of a file"),
    (["trials", "--storage", "notes.txt"], "notes.txt is not an SQLite database", "Choose another --storage"),
    (["report", "--storage", "mnist.db"], "mnist.db is an Optuna database without a batchopt study", ""),
    (["report", "--storage", "version.db"], "version.db has batchopt tables of version 99", "or another --storage"),
    (["report", "--storage", "good.db", "--study", "cifar"], "no study 'cifar' in", "it holds 'mnist'. Check --study"),
    (["trials", "--storage", "good.db", "--json", "--csv"], "--json and --csv", "exclude each other"),
    (["report", "--storage", "good.db", "--on", "Cray"], "--on Cray is no machine of this study", "it has Abacus, 2"),
    (["report", "--storage", "good.db", "--tolerance", "nan"], "--tolerance nan", "give a number"),
    (["report", "--storage", "good.db", "--target", "nan"], "--target nan", "write 0.97 or 97%"),
    (["report", "--storage", "good.db", "--html", "nowhere/r.html"], "--html nowhere/r.html", "a folder that exists"),
    (["report", "--storage", "good.db", "--html", "folder"], "--html folder", "a folder that exists"),
    (["report", "--storage", "good.db", "--png", "notes.txt"], "--png notes.txt: that is a file", "Name a folder"),
    (["export", "--storage", "missing.db", "--to", "new.db"], "missing.db does not exist", "Check --storage"),
    (["export", "--storage", "good.db", "--to", "notes.txt"], "notes.txt exists already", "Choose another --to"),
    (["export", "--storage", "good.db", "--to", "nosuch://host/db"], "--storage nosuch://host/db", "'nosuch'"),
    (["export", "--storage", "version.db", "--to", "new.db"], "batchopt tables of version 99", "another --storage"),
    (["merge", "good.db", "--to", "good.db"], "--to sqlite:///good.db is one of the databases to read", "name another"),
    (["merge", "good.db", "folder", "--to", "new.db"], "database folder is a folder", "Give the path of a file"),
    (["merge", "--to", "new.db"], "Missing argument", ""),
    (["doctor", "--storage", "notes.txt"], "notes.txt is not an SQLite database", "Choose another --storage"),
    (["train", *SCRIPT, "--storage", "good.db"], "Missing option '--to'", ""),
    (["train", *SCRIPT, "--to", "best.h5", "--storage", "good.db"], "model file best.h5", "Name one so"),
    (["train", *SCRIPT, "--to", "no/b.keras", "--storage", "good.db"], "the folder no does not exist", "Make it first"),
    (["train", *SCRIPT, "--to", "notes.keras", "--storage", "good.db"], "notes.keras exists already", "--force"),
    (["train", *SCRIPT, "--to", "best.keras", "--storage", "missing.db"], "missing.db does not exist", "--storage"),
    (["train", *SCRIPT, "--to", "b.keras", "--storage", "good.db", "--study", "cifar"], "no study 'cifar'", "--study"),
    (["train", *SCRIPT, "--to", "b.keras", "--storage", "good.db", "--on", "test"], "'--on'", "'train', 'all'"),
    (["train", "no.py", "--to", "best.keras", "--storage", "good.db"], "script no.py does not exist", "Give the path"),
    (["nosuch"], "No such command 'nosuch'", ""),
]

WORKER: list[Row] = [
    (
        ["--train-examples", "100", "--engine", "fused"],
        "batch size 8192 is above the training set of 100",
        "as 8..full",
    ),
    (["--data", "nowhere.npz"], "data file nowhere.npz: No such file or directory", "with --data"),
    (["--data", "truncated.npz"], "data file truncated.npz: not an .npz file with x_train", ""),
    (["--device", "gpu"], "--device gpu: TensorFlow sees no GPU on this machine", "use --device cpu"),
]
"""Said by a worker, which needs TensorFlow for it."""


def names(rows: list[Row]) -> list[str]:
    return [" ".join(options) for options, _, _ in rows]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user may point at by mistake, and one good database."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "folder").mkdir()
    (folder / "notes.txt").write_text("not a database\n")
    (folder / "notes.keras").write_text("not to be replaced\n")
    np.savez(folder / "truncated.npz", x_train=np.zeros((4, 28, 28), np.uint8))
    (folder / "truncated.npz").write_bytes((folder / "truncated.npz").read_bytes()[:500])
    write_study(folder / "good.db")
    shutil.copy(folder / "good.db", folder / "version.db")
    for name, statement in [
        ("version.db", "update batchopt_schema set version = 99"),
        ("other.db", "create table invoices (id integer)"),
    ]:
        connection = sqlite3.connect(folder / name)
        with connection:
            connection.execute(statement)
        connection.close()
    optuna.create_study(storage=f"sqlite:///{folder / 'mnist.db'}", study_name="mnist")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_refused(files: Path, folder: Path, command: list[str], wrong: str, to_do: str) -> None:
    """The command, a process in a folder of its own, says it in one line and leaves the folder as it was."""
    shutil.copytree(files, folder, dirs_exist_ok=True)
    before = contents(folder)
    done = run_command(command, folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert wrong in done.stderr
    assert to_do in done.stderr
    assert done.stdout == ""
    assert contents(folder) == before


@pytest.mark.parametrize(("options", "wrong", "to_do"), OPTIONS, ids=names(OPTIONS))
def test_a_script_refuses_bad_input_in_one_line_and_writes_nothing(
    files: Path, tmp_path: Path, options: list[str], wrong: str, to_do: str
) -> None:
    assert_refused(files, tmp_path, [*SHORT, *options], wrong, to_do)


@pytest.mark.parametrize(
    ("options", "wrong", "to_do"),
    # What a data file may be is asked of the loader itself, too.
    [pytest.param(*row, marks=pytest.mark.slow if "--data" in row[0] else []) for row in WORKER],
    ids=names(WORKER),
)
def test_a_script_refuses_what_only_a_worker_can_see_as_clearly(
    files: Path, tmp_path: Path, options: list[str], wrong: str, to_do: str
) -> None:
    if "gpu" in options and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    assert_refused(files, tmp_path, [*SHORT, *options], wrong, to_do)


@pytest.mark.parametrize(("arguments", "wrong", "to_do"), COMMANDS, ids=names(COMMANDS))
def test_batchopt_refuses_bad_input_in_one_line_and_makes_no_database(
    files: Path, tmp_path: Path, arguments: list[str], wrong: str, to_do: str
) -> None:
    assert_refused(files, tmp_path, ["batchopt", *arguments], wrong, to_do)


def said(files: Path, *arguments: str) -> str:
    result = CliRunner().invoke(batchopt, [*arguments, "--storage", str(files / "good.db")], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout


def test_list_names_each_study_with_its_goal_and_its_trials(files: Path) -> None:
    assert said(files, "list") == "mnist: accuracy after 2 epochs; 2 complete, 1 paused, 3 pruned\n"


def test_list_is_one_json_document(files: Path) -> None:
    assert json.loads(said(files, "list", "--json")) == [
        {
            "study": "mnist",
            "goal": {"kind": "best", "epochs": 2},
            "metric": {"name": "accuracy", "direction": "maximize"},
            "trials": {"complete": 2, "pruned": 3, "paused": 1},
        }
    ]


def test_report_says_what_to_use(files: Path) -> None:
    text = said(files, "report")
    assert re.match(
        r"Use batch size 64 with learning rate 0\.01\.\n  \d\d\.\d\d% validation accuracy expected after 2 epochs", text
    )
    assert "examples/s" not in text and "examples/s" in said(files, "report", "--details")
    assert "trials: 2 complete, 3 pruned, 1 running" in text


def test_report_is_one_json_document(files: Path) -> None:
    report = json.loads(said(files, "report", "--json", "--study", "mnist"))
    expected = {"batch_size": 64, "learning_rate": 0.01, "extra": {}, "value": 0.9375, "trial": 1}
    assert report["recommendation"].items() >= expected.items()
    assert report["recommendation"]["low"] < report["recommendation"]["expected"]
    assert [row["batch_size"] for row in report["advice"]["by_batch_size"]] == SPACE.grid_batch_sizes().tolist()
    assert report["machine"] == MACHINE.describe()
    assert [row["batch_size"] for row in report["by_batch_size"]] == [16, 64, 256]


def test_a_pipe_is_as_wide_as_a_table_wants_or_as_is_said(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = said(files, "report")
    monkeypatch.setenv("COLUMNS", "80")
    narrow = said(files, "report")
    assert max(map(len, wide.splitlines())) > 80 >= max(map(len, narrow.splitlines()))


def test_trials_are_a_line_each(files: Path) -> None:
    lines = said(files, "trials").splitlines()
    assert len(lines) == 1 + 6
    assert re.match(r" +1 +complete +64 +0\.01 +93\.75%", lines[2])
    assert lines[4].rstrip().endswith("diverged")
    assert lines[5].rstrip().endswith("out of memory")


def test_trials_are_one_json_document_with_every_epoch(files: Path) -> None:
    trials = json.loads(said(files, "trials", "--json"))
    assert [trial["trial"] for trial in trials] == list(range(6))
    assert [epoch["value"] for epoch in trials[1]["epochs"]] == [0.875, 0.9375]
    assert trials[3]["epochs"][0]["train_loss"] is None
    assert trials[4]["epochs"] == []


def test_trials_are_comma_separated_values_with_a_row_for_each_epoch(files: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(said(files, "trials", "--csv"))))
    assert [(row["trial"], row["epoch"]) for row in rows] == [
        *[("0", "1"), ("0", "2"), ("1", "1"), ("1", "2"), ("2", "1"), ("3", "1"), ("4", ""), ("5", "1")]
    ]
    assert (rows[3]["state"], rows[3]["batch_size"], float(rows[3]["value"])) == (
        "complete",
        "64",
        0.9375,
    )
    assert rows[5]["train_loss"] == ""


def test_the_commands_that_read_need_no_tensorflow(files: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READS_ALL, str(files / "good.db")], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    assert "recommendation" in done.stdout


@pytest.mark.parametrize(
    "program", [SCRIPT, ["batchopt"], ["batchopt", "trials"]], ids=["script", "batchopt", "trials"]
)
def test_help_is_there_and_needs_nothing(tmp_path: Path, program: list[str]) -> None:
    done = run_command([*program, "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(StorageError("no such"), 2), (StorageFailed("disk full"), 1), (WorkerDied("again"), 1)],
    ids=lambda value: type(value).__name__,
)
def test_what_fails_on_the_way_is_no_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BatchoptError, exit_code: int
) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["study.py"])
    with pytest.raises(SystemExit) as ended:
        _finish(command)
    assert ended.value.code == exit_code
    assert capsys.readouterr().err == f"{type(error).__name__}: {error}\n"


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(files: Path) -> None:
    """As in `batchopt trials --json | head -1`."""
    shell = (
        f"{sys.executable} -c 'from batchopt.cli.batchopt import main; main()' trials --json --storage good.db | true"
    )
    done = subprocess.run(["bash", "-c", shell], cwd=files, capture_output=True, text=True)
    assert done.stderr == ""


def test_who_wants_to_hear_nothing_is_warned_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database on a network file system, with --quiet: on standard error, where no program reads its report."""
    monkeypatch.setattr("batchopt.store.database.network_filesystem", lambda path: "nfs4")
    storage, options = str(tmp_path / "studies.db"), Options(seed=STAMP.seed)
    with view(quiet=True, to_stderr=False) as listener, ExitStack() as held:
        opened_ledger("quiet", storage, STAMP, options, listener=listener, check=lambda: None, held=held)
        listener(Noted("trial 3: the worker ended by signal SIGKILL; it is taken up again"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "is on a network file system (nfs4)" in said.err
