"""The `batchopt` command: its commands, gathered."""

from __future__ import annotations

from typing import NoReturn

import click

from batchopt.cli import moving as commands
from batchopt.cli import new, serving, training
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


GROUPS = (answering, scripting, training, new, serving, commands)

for command in (command for group in GROUPS for command in group.COMMANDS):
    batchopt.add_command(command)
