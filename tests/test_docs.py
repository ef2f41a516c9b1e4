"""The pages of the documentation: they lead to each other, and their Python is that of the code as it is."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import batchopt
import pytest
from batchopt.question.script import read_question
from batchopt.report.answer.reading import read_evidence
from batchopt.report.show.study_report import StudyReport
from batchopt.search import Scheduler
from batchopt.service.client import Trial
from commands import run_command
from pages import DOCS, LINKED, PAGES, README, ROOT, Block, all_blocks, anchors, blocks, free_names, spans
from written_study import write_study

MOST_LINES = 90
"""Of the README: one screen, or little more."""

SMALL = ["--trials", "1", "--epochs", "1", "--no-probe", "--engine", "fused", "--device", "cpu"]

CALLED = {"study": batchopt.Study, "report": StudyReport, "trial": Trial, "search": Scheduler}
"""What fragments call things, and what these are."""

SHOWN_FIRST = "start.md"
"""The page whose script is run each time; those of the others take as long, and are run with the slow tests."""

PYTHON = all_blocks("python")


# Pages


def test_the_readme_is_one_screen() -> None:
    assert len(README.read_text().splitlines()) <= MOST_LINES


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The links of a page to other files: path, which is empty for the page itself, and anchor."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            yield path, anchor


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: there is no {path}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {path}#{anchor}"


def test_the_readme_leads_to_every_page_and_says_what_each_answers() -> None:
    table = [line for line in README.read_text().splitlines() if line.startswith("| [")]
    for page in DOCS:
        rows = [line for line in table if f"](docs/{page.name})" in line]
        assert len(rows) == 1, f"README has no line for docs/{page.name}"
        assert "?" in rows[0], "its line says which question it answers"


LANGUAGES = ("python", "sh", "json", "yaml", "")
"""Of blocks; the last one is for what a program says."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_tested(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, block.where
        commands = (
            re.findall(r"^(?:\$|>>>|batchopt |python ).*", block.text, re.MULTILINE) if not block.language else []
        )
        assert not commands, f"{block.where}: say that it is of a shell, or Python, and it is tested"


def test_every_picture_is_shown_on_a_page() -> None:
    shown = {(page.parent / path).resolve() for page in PAGES for path, _ in links(page)}
    assert [path.name for path in (ROOT / "docs").glob("*.png") if path not in shown] == []


def test_the_report_that_is_shown_has_the_columns_of_one_that_is_made(tmp_path: Path) -> None:
    write_study(tmp_path / "studies.db")
    made = str(StudyReport.of(read_evidence(str(tmp_path / "studies.db"))))
    (shown,) = [block.text for block in blocks(README) if block.text.startswith("Use batch size")]
    (ours, theirs) = (next(line.split() for line in text.splitlines() if "verdict" in line) for text in (shown, made))
    assert ours == theirs


# Python


def in_names(blocks: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.where) for block in blocks]


@pytest.mark.parametrize("block", in_names([block for block in PYTHON if block.kind == "script"]))
def test_a_script_asks_its_question(block: Block, tmp_path: Path) -> None:
    if "run_script(" in block.text:
        (tmp_path / "study.py").write_text(block.text)
        assert read_question(tmp_path / "study.py").space.largest >= 16


def whole_programs() -> Iterator[Any]:
    """Scripts and whole blocks, those that train marked slow but for one page's."""
    for block in PYTHON:
        if block.kind in ("script", "whole"):
            trains = "run_script(" in block.text or "import keras" in block.text
            slow = trains and block.page.name != SHOWN_FIRST
            yield pytest.param(block, id=block.where, marks=[pytest.mark.slow] if slow else [])


BUILT = """
from batchopt import Task
given = {"batch_size": 32, "steps_per_epoch": 10, "epochs": 2, "trial_seed": 0}
task = Task(globals().get("build_model", len), len, callbacks=globals().get("make_callbacks"))
if "build_model" in globals():
    assert task.built(0.001, {}, given).compiled
if task.callbacks:
    assert task.made_callbacks(0.001, {}, given)
if "load_data" in globals():
    assert load_data(None).split()
"""
"""Has functions that a block defines do what they are for."""


@pytest.mark.parametrize("block", [*whole_programs()])
def test_a_whole_program_runs_as_it_stands(block: Block, tmp_path: Path) -> None:
    defines = block.kind == "whole" and re.search(
        r"^def (build_model|load_data|make_callbacks)\(", block.text, re.MULTILINE
    )
    (tmp_path / "study.py").write_text(block.text + (BUILT if defines else ""))
    small = SMALL if "run_script(" in block.text else []
    if block.kind == "whole":
        # What reads a study finds one.
        write_study(tmp_path / "studies.db", "mine")
    done = run_command(["study.py", *small], tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    assert ("Use batch size" in done.stdout) == bool(small)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_arguments_of_ours_are_those_of_the_code(page: Path) -> None:
    known: set[str] = set()
    for block in blocks(page, "python"):
        tree = ast.parse(block.text)
        missing = (free_names(block.text) & set(batchopt.__all__)) - known
        assert not missing, f"{block.where}: {', '.join(missing)} is imported nowhere above"
        known |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        check_imports(tree, block.where)
        check_calls(tree, block.where)
        if block.kind == "fragment":
            check_attributes(tree, block.where)
    for span in spans(page):
        try:
            check_calls(ast.parse(span.replace("**extra", "")), f"{page.name}: `{span}`")
        except SyntaxError:
            continue


def check_imports(tree: ast.AST, where: str) -> None:
    """Whatever is imported from our package is there; looked up without running what imports Keras."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "batchopt":
            there = module_names(node.module or "")
            gone = [alias.name for alias in node.names if alias.name not in there]
            assert not gone, f"{where}: {node.module} has no {', '.join(gone)}"


def module_names(name: str) -> set[str]:
    """Those at the top of a module."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, f"there is no module {name}"
    tree = ast.parse(Path(spec.origin).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    public = set(importlib.import_module(name).__all__) if "__all__" in Path(spec.origin).read_text() else set()
    return defined | imported | public


def check_calls(tree: ast.AST, where: str) -> None:
    """Each call of a public name has arguments that it takes; `...` stands for any."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = public(node.func)
        if called is not None:
            given = [each for each in node.args if not is_ellipsis(each) and not isinstance(each, ast.Starred)]
            named = {each.arg: None for each in node.keywords if each.arg}
            try:
                inspect.signature(called).bind_partial(*given, **named)
            except TypeError as error:
                pytest.fail(f"{where}: {ast.unparse(node)}: {error}")


def public(node: ast.expr) -> Any:
    """What a name of ours is, or a method of what is called by convention; None for any other."""
    if isinstance(node, ast.Name) and node.id in batchopt.__all__:
        return getattr(batchopt, node.id)
    if isinstance(node, ast.Name) and node.id in ("Scheduler", "ask"):
        return Scheduler if node.id == "Scheduler" else importlib.import_module("batchopt.service.client").ask
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "batchopt":
        return getattr(batchopt, node.attr)
    return None


def is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def check_attributes(tree: ast.AST, where: str) -> None:
    """What is called `study`, `report`, `trial` or `search` has what is asked of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in CALLED:
            kind = CALLED[node.value.id]
            fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
            own = set(re.findall(r"self\.(\w+)", inspect.getsource(kind)))
            assert node.attr in fields | own | set(dir(kind)), f"{where}: {ast.unparse(node)}"


@pytest.mark.parametrize("block", in_names(all_blocks("json")))
def test_what_is_said_to_the_service_is_a_part_of_a_question(block: Block) -> None:
    schemas = pytest.importorskip("batchopt.service.schemas")
    whole = {"batch_sizes": [16, 64], "learning_rates": [1e-4, 0.1], "metric": "loss", "epochs": 4, "examples": 1000}
    question = schemas.Question(**whole | json.loads(block.text))
    assert question.options() and question.budget()
