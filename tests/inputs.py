"""What people give by mistake, by the way in that they give it: each of these is one line, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from batchopt import (
    Budget,
    Configuration,
    Goal,
    Options,
    SearchSpace,
    Study,
    Task,
    powers_of_two,
)
from batchopt.report.answer.reading import read_evidence
from batchopt.search import Scheduler
from batchopt.search import SearchSpace as Space

SCRIPT: list[list[str]] = [
    *(
        ["--batch-sizes", text]
        for text in (
            "0",
            "-8",
            "abc",
            "",
            "64..8",
            "8..",
            "..8",
            "8,,16",
            "8;16",
            "1e400",
            "8..16:float",
            "²",
            "8..nan",
            "1.5",
        )
    ),
    *(
        ["--learning-rates", text]
        for text in ("0", "-1", "nan", "inf", "1e-1..1e-4", "", "..", "1e-3..", "0..1", "a..b", "1,2,3", "1e-400..1")
    ),
    *(["--trials", text] for text in ("0", "-1", "abc", "1.5", "", "99999999999999999999")),
    *(["--epochs", text] for text in ("0", "-3", "x", "1e3", "99999999999999")),
    *(["--time-budget", text] for text in ("soon", "0s", "-5m", "1h 30", "nan", "10 parsecs", "", "0h0m")),
    *(["--goal", text] for text in ("speed", "", "time", "best,time")),
    *(["--goal", "time", "--target", text] for text in ("150%", "nan", "inf", "many", "-1", "", "%")),
    ["--target", "0.9"],
    *(
        ["--worth", text]
        for text in (
            "0.1",
            "0 points per minute",
            "-1 points per minute",
            "x points per minute",
            "1 point per parsec",
            "nan points per second",
        )
    ),
    *(["--try", text] for text in ("junk", "48:0.01", "64:9", "64", ":0.1", "64:", "64:nan", "-64:0.1", "64:0.01:3")),
    *(["--seed", text] for text in ("-1", "x", "4294967296", "1.5")),
    *(["--workers", text] for text in ("0", "-2", "two")),
    *(["--device", text] for text in ("tpu", "gpu:", "gpu:x", "gpu:-1", "cpu:0")),
    *(["--engine", text] for text in ("warp", "")),
    *(["--search", text] for text in ("best", "")),
    *(["--memory-limit", text] for text in ("much", "0", "-1GiB", "2XB", "nan", "")),
    *(["--checkpoint-limit", text] for text in ("much", "0", "-1")),
    *(["--lease", text] for text in ("0", "1", "-30", "nan", "inf", "soon")),
    *(["--confirm", "--confirm-seeds", text] for text in ("0", "1", "-1", "many")),
    *(["--save-model", text] for text in ("best.h5", "best", "notes.keras", "nowhere/best.keras", "folder")),
    ["--train-examples", "0"],
    ["--train-examples", "-5"],
    ["--ray-gpus", "-1", "--ray", "auto"],
    ["--ray-cpus", "nan", "--ray", "auto"],
    ["--ray-cpus", "1"],
    ["--study", ""],
    ["--study", "  "],
    ["--study", "a\nb"],
    ["--study", "\x1b[31mred"],
    ["--study", "n" * 513],
    ["--nosuch"],
    ["surplus"],
    ["--trials"],
]
"""Options of a study's script."""

STORAGES = (
    "missing/studies.db",
    "folder",
    "notes.txt",
    "other.db",
    "cut.db",
    "short.db",
    "version.db",
    "",
    ":memory:",
    "sqlite://",
    "nosuch://host/db",
    "postgresql//u:geheim@h/db",
    "postgresql+nosuch://u:geheim@h/db",
    "sqlite:///good.db?mode=memory",
    "sqlite+pysqlcipher://:geheim@/good.db",
    "pipe",
    "loop.db",
    "good.db\0",
    "http://host/studies.db",
    "/dev/null/x.db",
    "n" * 300,
)
"""What is no database to read."""

COMMANDS: list[list[str]] = [
    *([command, "--storage", storage] for command in ("list", "report", "trials") for storage in STORAGES),
    # What is damaged the doctor says at length.
    *(["doctor", "--storage", storage] for storage in STORAGES if storage != "cut.db"),
    *(["export", "--to", "new.db", "--storage", storage] for storage in STORAGES),
    *(["merge", storage, "--to", "new.db"] for storage in STORAGES),
    ["merge", "--to", "new.db"],
    ["merge", "good.db", "--to", "good.db"],
    ["merge", "good.db", "--to", "notes.txt"],
    ["merge", "good.db", "--to", "folder"],
    ["merge", "good.db", "--to", "new.db", "--study", "nosuch"],
    ["export", "--storage", "good.db", "--to", "notes.txt"],
    ["export", "--storage", "good.db", "--to", "nowhere/new.db"],
    ["export", "--storage", "good.db", "--to", "good.db"],
    ["export", "--storage", "good.db", "--to", "new.db", "--study", "nosuch"],
    ["export", "--storage", "good.db"],
    *(
        ["report", "--storage", "good.db", *more]
        for more in (
            ["--study", "nosuch"],
            ["--study", ""],
            ["--on", "Cray"],
            ["--tolerance", "-1"],
            ["--tolerance", "nan"],
            ["--tolerance", "x"],
            ["--target", "nan"],
            ["--target", "many"],
            ["--target", "150%"],
            ["--goal", "speed"],
            ["--goal", "time"],
            ["--prefer", "cheap"],
            ["--html", "folder"],
            ["--html", "nowhere/page.html"],
            ["--png", "notes.txt"],
            ["--nosuch"],
            ["surplus"],
        )
    ),
    ["trials", "--storage", "good.db", "--json", "--csv"],
    ["trials", "--storage", "good.db", "--study", "nosuch"],
    ["dashboard", "--storage", "missing.db"],
    ["dashboard", "--storage", "good.db", "--port", "0"],
    ["dashboard", "--storage", "good.db", "--port", "70000"],
    ["dashboard", "--storage", "good.db", "--port", "http"],
    ["serve", "--storage", "good.db", "--port", "-1"],
    ["serve", "--storage", "good.db", "--host", "0.0.0.0", "--port", "0"],
    ["serve", "--storage", "notes.txt", "--port", "0"],
    ["token", "--storage", "good.db", "--list", "--revoke", "x"],
    ["token", "--storage", "good.db", "--revoke", "nosuch"],
    ["token", "--storage", "good.db", "--name", "n" * 129],
    ["token", "--storage", "good.db", "--study", ""],
    ["token", "--storage", "notes.txt"],
    ["new", "notes.txt"],
    ["new", "nowhere/study.py"],
    ["new", "folder"],
    ["new", "study.py", "--regression", "--tf-data"],
    ["new"],
    ["train", "missing.py", "--to", "best.keras", "--storage", "good.db"],
    ["train", "nothing.py", "--to", "best.keras", "--storage", "good.db"],
    ["train", "syntax.py", "--to", "best.keras", "--storage", "good.db"],
    ["train", "notes.keras", "--to", "best.keras", "--storage", "good.db"],
    ["train", "folder", "--to", "best.keras", "--storage", "good.db"],
    ["probe", "missing.py"],
    ["probe", "nothing.py"],
    ["nosuch"],
    ["--nosuch"],
    *(
        ["tune", "--metric", "loss", "--epochs", "2", "--examples", "1000", "--batch-sizes", "16..64", *more]
        for more in (
            [],
            ["--", "true"],
            ["--", "nosuchprogram", "{batch_size}", "{learning_rate}"],
            ["--", "true", "{batch_size}", "{learning_rate}", "{nosuch}"],
            ["--read", "(", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--read", "loss", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--examples", "8", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--epochs", "0", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--learning-rates", "x", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--direction", "up", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--metric", "strange", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--study", "a\nb", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--lease", "1", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--seed", "-1", "--", "true", "{batch_size}", "{learning_rate}"],
            ["--storage", "notes.txt", "--", "true", "{batch_size}", "{learning_rate}"],
        )
    ),
]
"""Of `batchopt`."""


def _task(**changed: Any) -> Task:
    return Task(**{"build_model": len, "load_data": len, **changed})


API: list[Callable[[], object]] = [
    lambda: SearchSpace([], (1e-4, 1e-1)),
    lambda: SearchSpace([0], (1e-4, 1e-1)),
    lambda: SearchSpace([-1, 8], (1e-4, 1e-1)),
    lambda: SearchSpace([1.5], (1e-4, 1e-1)),  # type: ignore[list-item]
    lambda: SearchSpace(["8"], (1e-4, 1e-1)),  # type: ignore[list-item]
    lambda: SearchSpace([True], (1e-4, 1e-1)),
    lambda: SearchSpace((64, 8), (1e-4, 1e-1)),
    lambda: SearchSpace((8, 64, 128), (1e-4, 1e-1)),  # type: ignore[arg-type]
    lambda: SearchSpace([2**63], (1e-4, 1e-1)),
    lambda: SearchSpace([8], (1e-1, 1e-4)),
    lambda: SearchSpace([8], (0.0, 1e-1)),
    lambda: SearchSpace([8], (-1e-4, 1e-1)),
    lambda: SearchSpace([8], (math.nan, 1e-1)),
    lambda: SearchSpace([8], (1e-4, math.inf)),
    lambda: SearchSpace([8], (1e-4,)),  # type: ignore[arg-type]
    lambda: SearchSpace([8], "1e-4"),  # type: ignore[arg-type]
    lambda: SearchSpace([8], (1e-4, 1e-1), {"batch_size": None}),  # type: ignore[dict-item]
    lambda: SearchSpace([8], (1e-4, 1e-1), {"units": (1, 2)}),  # type: ignore[dict-item]
    lambda: SearchSpace([8], (1e-4, 1e-1), {"": None}),  # type: ignore[dict-item]
    lambda: powers_of_two(0, 8),
    lambda: powers_of_two(8, 4),
    lambda: powers_of_two(-8, 4),
    lambda: powers_of_two(1.5, 4),  # type: ignore[arg-type]
    lambda: Goal("speed"),  # type: ignore[arg-type]
    lambda: Goal(epochs=0),
    lambda: Goal(epochs=-1),
    lambda: Goal(epochs=True),
    lambda: Goal(epochs="5"),  # type: ignore[arg-type]
    lambda: Goal(epochs=2.0),  # type: ignore[arg-type]
    lambda: Goal(epochs=10**12),
    lambda: Goal("time"),
    lambda: Goal("time", target=math.nan),
    lambda: Goal("time", target="0.9"),  # type: ignore[arg-type]
    lambda: Goal("time", target=0.9, value="best"),
    lambda: Goal("best", target=0.9),
    lambda: Goal(value="first"),  # type: ignore[arg-type]
    lambda: Options(search="best"),
    lambda: Options(seed=-1),
    lambda: Options(seed=2**32),
    lambda: Options(seed=1.5),  # type: ignore[arg-type]
    lambda: Options(workers=0),
    lambda: Options(workers="2"),  # type: ignore[arg-type]
    lambda: Options(device="tpu"),
    lambda: Options(device=0),  # type: ignore[arg-type]
    lambda: Options(engine="warp"),  # type: ignore[arg-type]
    lambda: Options(train_examples=0),
    lambda: Options(memory_limit=0),
    lambda: Options(memory_limit="2GiB"),  # type: ignore[arg-type]
    lambda: Options(lease=1.0),
    lambda: Options(lease=math.nan),
    lambda: Options(lease=math.inf),
    lambda: Options(prune="no"),  # type: ignore[arg-type]
    lambda: Options(checkpoint_limit=0),
    lambda: Options(ray_gpus=-1.0),
    lambda: Budget(trials=0),
    lambda: Budget(trials=-1),
    lambda: Budget(trials=1.5),  # type: ignore[arg-type]
    lambda: Budget(trials="30"),  # type: ignore[arg-type]
    lambda: Budget(seconds=0.0),
    lambda: Budget(seconds=math.nan),
    lambda: Budget(worth=-1.0),
    lambda: Configuration(0, 0.1),
    lambda: Configuration(8, -0.1),
    lambda: Configuration(8, math.nan),
    lambda: Configuration("8", 0.1),  # type: ignore[arg-type]
    lambda: _task(build_model=None),
    lambda: _task(load_data="data.npz"),
    lambda: _task(metric=""),
    lambda: _task(metric=3),
    lambda: _task(direction="up"),
    lambda: _task(callbacks=[]),
    lambda: _task(class_weight={0: -1.0}),
    lambda: _task(class_weight=[1, 2]),
    lambda: _task(class_weight={0: math.nan}),
    lambda: Study(_task(), SearchSpace([8], (1e-4, 1e-1)), Goal(), name=""),
    lambda: Study(_task(), SearchSpace([8], (1e-4, 1e-1)), Goal(), name="a\nb"),
    lambda: Study(_task(), SearchSpace([8], (1e-4, 1e-1)), Goal(), name="x", storage=7),  # type: ignore[arg-type]
    lambda: Study(_task(), [8], Goal(), name="x"),  # type: ignore[arg-type]
    lambda: Study(_task(), SearchSpace([8], (1e-4, 1e-1)), "best", name="x"),  # type: ignore[arg-type]
    lambda: Study(len, SearchSpace([8], (1e-4, 1e-1)), Goal(), name="x"),  # type: ignore[arg-type]
    lambda: Scheduler(Space([8], (1e-4, 1e-1)), max_epochs=0),
    lambda: Scheduler(Space([8], (1e-4, 1e-1)), max_epochs=1, direction="up"),  # type: ignore[arg-type]
    lambda: Scheduler(Space([8], (1e-4, 1e-1)), max_epochs=1, max_trials=0),
    lambda: Scheduler(Space([8], (1e-4, 1e-1)), max_epochs=1).tell(0, 1, 0.5),
    lambda: Scheduler(Space([8], (1e-4, 1e-1)), max_epochs=1).recommend(),
    lambda: Scheduler(Space([8], (1e-4, 1e-1)), max_epochs=1).enqueue(9, 0.1),
    lambda: read_evidence("missing.db"),
    lambda: read_evidence("notes.txt"),
    lambda: read_evidence("good.db", "nosuch"),
    lambda: read_evidence("good.db", target=math.nan),
    lambda: read_evidence("good.db", tolerance=math.inf),
    lambda: read_evidence("good.db", on="Cray"),
    lambda: read_evidence("good.db", goal="time"),
]

GOOD: dict[str, Any] = {
    "batch_sizes": [16, 64],
    "learning_rates": [1e-4, 1e-1],
    "metric": "val_loss",
    "epochs": 4,
    "examples": 1000,
}

SERVICE: list[tuple[str, str, Any]] = [
    *(
        ("PUT", "/v1/studies/mine", GOOD | changed)
        for changed in (
            {"batch_sizes": []},
            {"batch_sizes": [0]},
            {"batch_sizes": [-1]},
            {"batch_sizes": ["16"]},
            {"batch_sizes": [16.5]},
            {"batch_sizes": {"low": 64, "high": 8}},
            {"batch_sizes": [2000]},
            {"batch_sizes": None},
            {"learning_rates": [1e-4]},
            {"learning_rates": [0.1, 1e-4]},
            {"learning_rates": [0, 1]},
            {"learning_rates": [-1, 1]},
            {"learning_rates": "1e-4..1"},
            {"metric": ""},
            {"metric": "n" * 129},
            {"metric": 3},
            {"metric": "strange"},
            {"direction": "up"},
            {"goal": "speed"},
            {"epochs": 0},
            {"epochs": 1.5},
            {"epochs": "4"},
            {"epochs": 10**9},
            {"examples": 0},
            {"examples": 2**63},
            {"trials": 0},
            {"trials": -1},
            {"seed": -1},
            {"seed": 2**32},
            {"lease_seconds": 0.1},
            {"lease_seconds": "30"},
            {"until_known": 1},
            {"nosuch": 1},
            {"extra": {"units": {"type": "int"}}},
            {"extra": {"units": {"type": "int", "low": 0.5, "high": 2}}},
            {"extra": {"units": {"type": "float", "low": 2, "high": 1}}},
            {"extra": {"units": {"type": "categorical", "choices": []}}},
            {"extra": {"batch_size": {"type": "int", "low": 1, "high": 2}}},
            {"extra": {"": {"type": "int", "low": 1, "high": 2}}},
        )
    ),
    ("PUT", "/v1/studies/mine", None),
    ("PUT", "/v1/studies/mine", b"{"),
    ("PUT", "/v1/studies/mine", b"\xff\xfe"),
    ("PUT", "/v1/studies/mine", b"[" * 100_000),
    ("PUT", "/v1/studies/mine", b'{"epochs": NaN}'),
    ("PUT", "/v1/studies/mine", []),
    ("PUT", "/v1/studies/a%0Ab", GOOD),
    ("PUT", "/v1/studies/" + "n" * 600, GOOD),
    ("POST", "/v1/studies/nosuch/trials:ask", {"client_id": "me"}),
    ("POST", "/v1/studies/mnist/trials:ask", {"client_id": "me"}),
    ("POST", "/v1/studies/nosuch/trials:ask", {}),
    ("POST", "/v1/studies/nosuch/trials:ask", {"client_id": ""}),
    ("POST", "/v1/studies/nosuch/trials/0/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0}),
    ("POST", "/v1/studies/nosuch/trials/-1/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0}),
    ("POST", "/v1/studies/nosuch/trials/x/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0}),
    ("POST", "/v1/studies/nosuch/trials/99999999999/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0}),
    ("POST", "/v1/studies/nosuch/trials/0:renew", {}),
    ("POST", "/v1/studies/nosuch/trials/0:complete", {}),
    ("POST", "/v1/studies/nosuch/trials/0:fail", {"why": ""}),
    ("PUT", "/v1/studies/nosuch/trials/0/checkpoint?epoch=0&sha256=x", b"state"),
    ("GET", "/v1/studies/nosuch/trials/0/checkpoint", None),
    ("GET", "/v1/studies/nosuch", None),
    ("GET", "/v1/studies/nosuch/report", None),
    ("GET", "/nosuch", None),
    ("DELETE", "/v1/studies/mnist", None),
]


def data_files(folder: Path) -> list[str]:
    """Files that are no MNIST, each wrong in its own way; their names."""
    images, labels = np.zeros((8, 28, 28), np.uint8), np.zeros(8, np.uint8)
    whole = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    for name, changed in {
        "lacks.npz": {"x_train": images},
        "lengths.npz": whole | {"y_train": labels[:3]},
        "objects.npz": whole | {"y_train": np.array([{"a": 1}] * 8, dtype=object)},
        "empty.npz": whole | {"x_train": images[:0], "y_train": labels[:0]},
        "text.npz": whole | {"y_train": np.array(["a"] * 8)},
        "dims.npz": whole | {"y_train": np.zeros((8, 2), np.uint8)},
    }.items():
        np.savez(folder / name, **changed)
    (folder / "cut.npz").write_bytes((folder / "lengths.npz").read_bytes()[:400])
    (folder / "words.npz").write_text("no archive\n")
    (folder / "nothing.npz").write_bytes(b"")
    (folder / "pickle.npz").write_bytes(b"\x80\x04N.")
    return sorted(path.name for path in folder.glob("*.npz"))
