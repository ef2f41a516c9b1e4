"""`batchopt new`: a study script that runs as it is, to be filled in."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from batchopt.cli.terminal import say
from batchopt.errors import InvalidInput
from batchopt.text import printable

KINDS = {
    "regression": "A regression: less of an error is better.",
    "tf-data": "Data from a tf.data.Dataset.",
    "custom-step": "A model with a training step of its own.",
    "command": "A command for `batchopt tune`, of any framework.",
}
"""What a script may be of beside a classification, and what the help says of it."""


@click.command("new")
@click.argument("script", type=click.Path(path_type=Path))
@click.option("--regression", is_flag=True, help=KINDS["regression"])
@click.option("--tf-data", is_flag=True, help=KINDS["tf-data"])
@click.option("--custom-step", is_flag=True, help=KINDS["custom-step"])
@click.option("--command", is_flag=True, help=KINDS["command"])
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
def new_command(script: Path, force: bool, **kinds: bool) -> None:
    """Write a study script, of a classification where nothing else is said.

    It runs as it is, on MNIST, which is embedded; put your own model and data in the place of its own.
    """
    if script.suffix != ".py":
        raise InvalidInput(f"script {printable(script)}: give it a name that ends in .py.")
    chosen = [kind for kind, asked in kinds.items() if asked]
    if len(chosen) > 1:
        raise click.UsageError(f"--{' and --'.join(chosen)} exclude each other.".replace("_", "-"))
    name = chosen[0] if chosen else "classification"
    template = files("batchopt.cli").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")
    text = template.replace("{name}", script.name).replace("{study}", script.stem)
    try:
        with script.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidInput(f"script {printable(script)} is there already. Use --force to replace it.") from None
    except OSError as error:
        raise InvalidInput(f"script {printable(script)}: {error.strerror}.") from None
    say(f"written: {printable(script)}")
    if name == "command":
        say(f"try it:  python {printable(script)}, then the search: the line is at its top")
        return
    say(f"try it:  python {printable(script)} --trials 3")


COMMANDS = (new_command,)
"""Those of this module."""
