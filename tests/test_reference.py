"""The reference of options and public names is made from the code, and nothing in it is without a word.

`python tests/test_reference.py` writes `docs/reference.md` anew.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import batchopt
import batchopt.search
import click
import pytest
from batchopt import Goal, SearchSpace, Task
from batchopt.cli.batchopt import batchopt as group
from batchopt.cli.study_script import script_command
from batchopt.service import client

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

ELSEWHERE = {"help", "version"}


def commands() -> dict[str, click.Command]:
    """A study's script, and each command of `batchopt`, by how it is called."""
    # A script's options are named after the file that is run.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["study.py"])
        script = script_command(Task(len, len), SearchSpace([16, 512], (1e-4, 1e-1)), Goal())
    return {"python study.py": script} | {f"batchopt {name}": command for name, command in group.commands.items()}


def options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and one.name not in ELSEWHERE]


def row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    kind = ""
    if isinstance(option.type, click.Choice):
        kind = " " + "\\|".join(map(str, option.type.choices))
    elif not option.is_flag:
        kind = " " + (option.metavar or option.type.name.upper()).replace("|", "\\|")
    text = (option.help or "").replace("|", "\\|").replace("  [default", " [default")
    if option.show_default and option.default not in (None, False):
        text += f" [default: {option.default}]"
    if option.required:
        text += " [required]"
    return f"| {names}{kind} | {text} |"


def names() -> Iterator[tuple[str, object]]:
    yield from ((f"batchopt.{name}", getattr(batchopt, name)) for name in batchopt.__all__)
    for module in (batchopt.search, client):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        there = getattr(module, "__all__", own)
        yield from ((f"{module.__name__}.{name}", getattr(module, name)) for name in there if not name.startswith("_"))


def first_paragraph(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split()).replace("|", "\\|")


def everything() -> str:
    """The page."""
    lines = ["# Reference", "", "Made from the code by `python tests/test_reference.py`.", "", "## Commands", ""]
    for called, command in commands().items():
        asked = [one for one in command.params if isinstance(one, click.Argument)]
        arguments = " ".join(one.make_metavar(click.Context(command)) for one in asked)
        lines += [f"### `{called}{' ' + arguments if arguments else ''}`", ""]
        if called != "python study.py":
            lines += [first_paragraph(command.help or ""), ""]
        lines += ["| option | |", "|---|---|", *map(row, options(command)), ""]
    lines += ["## Public names", "", "| name | |", "|---|---|"]
    lines += [f"| `{name}` | {first_paragraph(inspect.getdoc(value) or '')} |" for name, value in names()]
    return "\n".join(lines) + "\n"


def test_the_reference_is_what_the_code_says() -> None:
    assert everything() == PAGE.read_text(), "read what has changed, then `python tests/test_reference.py`"


@pytest.mark.parametrize("called", commands())
def test_each_option_and_command_says_what_it_is(called: str) -> None:
    command = commands()[called]
    assert called == "python study.py" or command.help
    assert [option.opts for option in options(command) if not (option.help or "").strip()] == []


def test_each_public_name_says_what_it_is() -> None:
    assert [name for name, value in names() if not (inspect.getdoc(value) or "").strip()] == []


@pytest.mark.parametrize("name", batchopt.__all__)
def test_each_field_of_a_public_record_is_described(name: str) -> None:
    record = getattr(batchopt, name)
    if not dataclasses.is_dataclass(record):
        return
    said = inspect.getdoc(record) or ""
    assert [field.name for field in dataclasses.fields(record) if not re.search(rf"\b{field.name}\b", said)] == []


if __name__ == "__main__":
    PAGE.write_text(everything())
