"""The shell lines of the documentation: each option is one that is there, with a value that it takes.

What only reads or writes databases is run; what trains, serves or needs a server is parsed as its command would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from batchopt import Goal, Options, SearchSpace
from batchopt.cli.parsing import (
    parse_batch_sizes,
    parse_bytes,
    parse_configuration,
    parse_duration,
    parse_extra,
    parse_learning_rates,
    parse_target,
)
from batchopt.question.options import gpu_indices, parse_worth
from batchopt.study.command_line import Command
from click.testing import CliRunner
from pages import ADDRESS, PAGES, ROOT, all_blocks, blocks, spans
from test_reference import commands
from written_study import write_study

COMMANDS = commands()
SCRIPT = COMMANDS["python study.py"]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

READERS = ("list", "trials", "report", "export", "merge", "doctor", "new", "token")
"""The commands that are run: on files alone, each in a moment."""

PICTURES = "--png"
"""A browser draws them, which takes ten seconds; `tests/report/show/test_page.py` has that."""

SHELLS = ("sh", "bash")

FOREIGN = {"--requeue"}
"""Options of other programs that sentences speak of."""

VALUES: dict[str, Callable[[str], Any]] = {
    "batch_sizes": lambda text: parse_batch_sizes(text, full=60_000),
    "learning_rates": parse_learning_rates,
    "target": parse_target,
    "time_budget": parse_duration,
    "memory_limit": parse_bytes,
    "checkpoint_limit": parse_bytes,
    "worth": parse_worth,
    "device": gpu_indices,
}
"""How the text of an option becomes a value, by the option's name."""

MANY = {"tries": parse_configuration, "extra": parse_extra}
"""The same, of options that may be repeated."""


def lines(text: str) -> Iterator[list[str]]:
    """The simple commands of shell text as words; what is quoted as an argument to another shell, too."""
    whole = ""
    for line in text.replace("\\\n", " ").splitlines():
        whole += line + "\n"
        # What is redirected is no argument.
        lexer = shlex.shlex(re.sub(r"(?<=\s)\d?>{1,2}\s*\S+", "", whole), posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:
            # A quoted text that goes on in the next line.
            continue
        whole = ""
        command: list[str] = []
        for word in [*words, ";"]:
            if re.fullmatch(r"[;&|()<>]+", word):
                if command:
                    yield command
                command = []
            else:
                command.append(word)
                if " python " in f" {word} " and " " in word:
                    yield from lines(word)


def programs(text: str, *names: str) -> Iterator[list[str]]:
    """The commands that run one of some programs with arguments, from its name on."""
    for words in lines(text):
        for at, word in enumerate(words[:-1]):
            if Path(word).name in names:
                yield words[at:]
            if Path(word).name in ("batchopt", *names):
                # What follows is its own, a command that it is given included.
                break


def parsed(called: str, arguments: list[str]) -> click.Context:
    """A command line as its command reads it; raises click's errors, and ours."""
    command = SCRIPT if called.startswith("python") else COMMANDS[called]
    context = command.make_context(called, [word for word in arguments if word != "..."])
    given = context.params
    for name, value in VALUES.items():
        if isinstance(given.get(name), str):
            value(given[name])
    for name, one in MANY.items():
        for text in given.get(name) or ():
            one(text)
    if command is SCRIPT:
        check_script(given)
    if called == "batchopt tune" and given["command"]:
        extra = tuple(parse_extra(text)[0] for text in given["extra"])
        read = given["read"] and re.compile(given["read"])
        # The program need not be on this machine.
        Command((sys.executable, *given["command"][1:]), given["metric"] or "loss", read, given["results"], extra)
    return context


def check_script(given: dict[str, Any]) -> None:
    """The options of a script belong together."""
    fields = {field.name for field in dataclasses.fields(Options)} - {"memory_limit", "checkpoint_limit"}
    Options(**{name: value for name, value in given.items() if name in fields})
    target = None if given["target"] is None else parse_target(given["target"])
    Goal().changed(given["kind"], target, given["epochs"], given["energy_weight"])
    if given["batch_sizes"]:
        SearchSpace(parse_batch_sizes(given["batch_sizes"], full=60_000))


def shell_text(page: Path) -> str:
    """All that a page would have one type, and what its files of other kinds do."""
    started = [f"{line}\n" for block in blocks(page, "yaml") for line in re.findall(r"entrypoint: (.*)", block.text)]
    return "".join([*(block.text + "\n" for block in blocks(page, *SHELLS)), *started])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_is_there_with_options_that_it_takes(page: Path) -> None:
    text = shell_text(page)
    for words in programs(text, "batchopt"):
        called = " ".join(words[:2])
        assert called in COMMANDS, f"{page.name}: {shlex.join(words)}"
        check(page, called, words[2:])
    for words in programs(text, "python", "python3"):
        script = Path(words[1])
        if script.suffix != ".py":
            assert words[1].startswith("-"), f"{page.name}: {shlex.join(words)}"
        elif script.parts[0] == "tests":
            assert (ROOT / script).is_file(), script
        else:
            assert script.parts[0] != "studies" or (ROOT / script).is_file(), script
            check(page, "python study.py", words[2:])


def check(page: Path, called: str, arguments: list[str]) -> None:
    try:
        parsed(called, arguments)
    except Exception as error:  # noqa: BLE001  whatever it is, the page is wrong
        pytest.fail(f"{page.name}: {called} {shlex.join(arguments)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_installed_is_an_extra(page: Path) -> None:
    for name in re.findall(r"(?:batchopt|\.)\[([a-z,]+)\]", page.read_text()):
        assert set(name.split(",")) <= EXTRAS.keys(), f"{page.name}: [{name}]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_lines_are_shell(page: Path) -> None:
    for block in blocks(page, *SHELLS):
        # Places in braces and `...` are words to a shell.
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.where}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_and_commands_that_sentences_speak_of_are_there(page: Path) -> None:
    known = {
        name for one in COMMANDS.values() for option in one.params for name in (*option.opts, *option.secondary_opts)
    }
    for span in spans(page):
        words = span.split()
        if words[0] == "batchopt" and len(words) > 1 and not words[1].startswith("-"):
            assert " ".join(words[:2]) in COMMANDS, f"{page.name}: `{span}`"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span):
            assert option in known | FOREIGN | {"--help", "--version"}, f"{page.name}: `{span}`"


def test_every_command_is_on_a_page_that_was_written() -> None:
    told = "".join(page.read_text() for page in PAGES if page.name != "reference.md")
    assert [called for called in COMMANDS if called.startswith("batchopt") and called not in told] == []


def reads() -> list[list[str]]:
    """The commands of all pages that are run, each once; what names a server, or stands for a name, is left out."""
    found: dict[tuple[str, ...], None] = {}
    for page in PAGES:
        for words in programs(shell_text(page), "batchopt"):
            if words[1] in READERS and not re.search(r"://|\b[A-Z]{3,}\b|--study (?!mnist)", " ".join(words)):
                at = words.index(PICTURES) if PICTURES in words else None
                found[tuple(words[1:] if at is None else [*words[1:at], *words[at + 2 :]])] = None
    return [list(words) for words in found]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and a token, and two copies of them."""
    folder = tmp_path_factory.mktemp("pages")
    write_study(folder / "studies.db")
    CliRunner().invoke(COMMANDS["batchopt token"], ["--storage", str(folder / "studies.db"), "--name", "mine"])
    for name in ("a.db", "b.db"):
        shutil.copy(folder / "studies.db", folder / name)
    return folder


@pytest.mark.parametrize("arguments", reads(), ids=shlex.join)
def test_what_reads_or_copies_does_so(
    arguments: list[str], written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(written, folder)
    monkeypatch.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        COMMANDS[f"batchopt {arguments[0]}"].main(arguments[1:], standalone_mode=False)
    assert said.getvalue()


def test_what_curl_says_is_answered_by_a_route_and_is_a_question() -> None:
    app = pytest.importorskip("batchopt.service.app")
    schemas = pytest.importorskip("batchopt.service.schemas")
    keys = type("Open", (), {"needed": lambda self: False})()
    routes = [route.path_regex for route in app.make_app("studies.db", keys).routes if hasattr(route, "path_regex")]
    for block in all_blocks(*SHELLS):
        for words in programs(block.text, "curl"):
            for word in words:
                path = word.removeprefix(ADDRESS) if word.startswith(ADDRESS) else ""
                assert not path or any(regex.match(path) for regex in routes), f"{block.where}: {word}"
                if word.startswith("{") and "PUT" in words:
                    assert schemas.Question(**json.loads(word)).stamp()
