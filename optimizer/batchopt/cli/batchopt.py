"""The `batchopt` command: its commands, gathered."""

from __future__ import annotations

from typing import NoReturn

import click

from batchopt.cli import moving as commands
from batchopt.cli import new, serving, training, tune
from batchopt.cli import reading as answering
from batchopt.cli import study_script as scripting
from batchopt.cli.exits import _finish


def main() -> NoReturn:
    """The `batchopt` command."""
    _finish(batchopt)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchopt")
def batchopt() -> None:
    """Inspect, move, repair and serve batch-size studies."""


COMMANDS = (
    *answering.COMMANDS,
    *scripting.COMMANDS,
    *training.COMMANDS,
    *new.COMMANDS,
    *commands.COMMANDS,
    *serving.COMMANDS,
    *tune.COMMANDS,
)

for command in COMMANDS:
    batchopt.add_command(command)
