"""The house: who may know whom, and how large a room may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "optimizer").rglob("*.py"))

FLOORS = {
    "errors": 0,
    "signals": 0,
    "text": 0,
    "checked": 0,
    "search": 1,
    "training": 1,
    "options": 2,
    "store": 2,
    "report": 3,
    "capacity": 3,
    "seat": 3,
    "shared_study": 4,
    "loop": 4,
    "probing": 4,
    "cluster": 4,
    "ending": 4,
    "seating": 5,
    "searches": 5,
    "questions": 5,
    "tries": 5,
    "study": 6,
    "confirming": 6,
    "inspection": 6,
    "commands": 6,
    "answering": 7,
    "scripting": 7,
    "cli": 8,
}
"""A module imports only from its own floor and lower ones; `search` and `training` share one and do not meet."""


def imports(file: Path) -> list[str]:
    tree = ast.parse(file.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def place(file: Path) -> str:
    return file.relative_to(ROOT / "optimizer").parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_floors(file: Path) -> None:
    here = place(file)
    if here == "__init__":
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "optimizer" and len(parts) > 1 and parts[1] in FLOORS:
            assert FLOORS[parts[1]] <= FLOORS[here], f"{file} imports {name}"
            assert {here, parts[1]} != {"search", "training"}, f"{file} imports {name}"
        assert parts[0] != "studies", f"{file} imports {name}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_tensorflow_is_imported_in_training_only(file: Path) -> None:
    if place(file) != "training":
        assert not {"tensorflow", "keras"} & {name.split(".")[0] for name in imports(file)}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_room_stays_under_350_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


def test_the_studys_process_imports_no_tensorflow() -> None:
    code = "import sys, batchopt.cli.batchopt, studies.mnist; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    import optimizer

    for name in optimizer.__all__:
        assert (getattr(optimizer, name).__doc__ or "").strip(), name


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_the_linters_and_the_type_checker_are_content(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
