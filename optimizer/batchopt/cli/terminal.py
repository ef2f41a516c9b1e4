"""What all commands share: options, the console, JSON, the live view."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from batchopt.events import Event, Listener, Noted
from batchopt.report.show.console import TextConsole
from batchopt.report.show.live import LiveView, PlainView
from batchopt.store.access import explained
from batchopt.text import printable
from batchopt.words import finite

PIPE_WIDTH = 160
"""Columns of a table that goes to a file or another program."""

DEFAULT_STORAGE = "sqlite:///studies.db"


def storage_option(command: Callable[..., None]) -> Callable[..., None]:
    """Where the studies are; a row there that a command stumbles over is named, however far the command has come."""

    @functools.wraps(command)
    def of_storage(storage: str, **options: Any) -> None:
        with explained(storage):
            command(storage=storage, **options)

    return click.option(
        "--storage", default=DEFAULT_STORAGE, show_default=True, help="Database: a path or an SQLAlchemy URL."
    )(of_storage)


def study_option(command: Callable[..., None]) -> Callable[..., None]:
    """Which of them."""
    return click.option("--study", help="Name of the study; may be left out where there is only one.")(command)


def energy_weight_option(command: Callable[..., None]) -> Callable[..., None]:
    """How much energy counts, where the goal is energy."""
    return click.option(
        "--energy-weight",
        type=click.FloatRange(0, 1),
        metavar="0..1",
        help="For --goal energy: 1 for energy alone, less for a trade-off with time, in joules (Zeus).  [default: 1]",
    )(command)


def ray_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where workers run, other than on this machine."""
    for option in (
        click.option("--ray-gpus", type=float, help="Each worker's GPUs there.  [default: one, if there are any]"),
        click.option("--ray-cpus", type=float, help="Each worker's CPUs there.  [default: its part of a node]"),
        click.option("--ray", metavar="auto|ADDRESS|local", help="Train on the nodes of a Ray cluster."),
    ):
        command = option(command)
    return command


def console() -> TextConsole:
    """Standard output; where it is no terminal, and COLUMNS does not say how wide it is, wide enough for any table."""
    terminal = TextConsole()
    return terminal if terminal.is_terminal or "COLUMNS" in os.environ else TextConsole(width=PIPE_WIDTH)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, as text."""
    click.echo(printable(text, lines=True), err=err)


def print_json(document: Any) -> None:
    """Print one JSON document; what is no finite number is null there."""
    click.echo(json.dumps(finite(document), indent=2, allow_nan=False))


def view(*, quiet: bool, to_stderr: bool) -> AbstractContextManager[Listener]:
    """What shows how far it is: live on a terminal, else line by line; `quiet`, only what it warns of."""
    if quiet:
        return nullcontext(_warn)
    console = TextConsole(stderr=to_stderr)
    return LiveView(console) if console.is_terminal else PlainView(console)


def _warn(event: Event) -> None:
    if isinstance(event, Noted) and event.warning:
        say(event.text, err=True)
