"""The house: who may know whom, how large a room may be, and that everything in it has its place."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import batchopt
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "optimizer" / "batchopt"
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_stays_under_350_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


def test_the_studys_process_imports_no_tensorflow() -> None:
    code = (
        "import sys, batchopt.cli.batchopt, batchopt.study.study, batchopt.datasets;"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    for name in batchopt.__all__:
        assert (getattr(batchopt, name).__doc__ or "").strip(), name


def test_every_folder_of_the_package_is_installed_and_documented() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(file.parent.relative_to(PACKAGE.parent).parts) for file in MODULES}
    assert set(listed) == folders | {"batchopt.studies"}
    for folder in folders:
        assert (PACKAGE.parent / folder.replace(".", "/") / "__init__.py").read_text().startswith('"""'), folder


def test_the_map_shows_every_file() -> None:
    shown = [line.split()[0] for line in (ROOT / "optimizer" / "README.md").read_text().splitlines() if line.strip()]
    for module in MODULES:
        if module.name != "__init__.py":
            assert module.name in shown, f"{module.relative_to(PACKAGE)} is not in optimizer/README.md"


OURS = ("optimizer", "studies", "tests")
"""What is linted: by name, so that an environment beside them is not read, whatever it is called."""

IMPORT_LINTER = ["-c", "from importlinter.cli import lint_imports_command as lint; lint()"]


@pytest.mark.parametrize(
    "tool",
    [["-m", "ruff", "check", *OURS], ["-m", "ruff", "format", "--check", *OURS], ["-m", "mypy"], IMPORT_LINTER],
    ids=["ruff", "format", "mypy", "imports"],
)
def test_the_linters_and_the_type_checker_are_content(tool: list[str]) -> None:
    done = subprocess.run([sys.executable, *tool], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_test_files_have_one_name() -> None:
    """Of two that have, pytest collects neither: their folders are no packages."""
    names = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_code_of_ours_lies_where_it_is_not_linted() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == []
    assert all(folder in (ROOT / ".ci" / "check").read_text() for folder in OURS)
