"""`batchopt serve` and `batchopt token`: studies for jobs in any framework and language, over HTTP."""

from __future__ import annotations

import click

from batchopt.cli.terminal import say, storage_option
from batchopt.errors import InvalidInput
from batchopt.store.access import opened
from batchopt.store.making import checked_name, quiet_optuna
from batchopt.store.tokens import Right, Tokens
from batchopt.text import printable

PORT = 8089

LONGEST_TOKEN_NAME = 128


@click.command("serve")
@storage_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 for any that is free.")
def serve_command(storage: str, host: str, port: int) -> None:
    """Serve studies to jobs in any framework and language, over HTTP.

    A job asks for a step, tells each epoch, and is told what comes next; `GET /docs` shows how.
    """
    try:
        from batchopt.service.serving import serve
    except ModuleNotFoundError as error:
        raise InvalidInput(f"serve needs {error.name}: `pip install 'batchopt[service]'`.") from None
    with quiet_optuna():
        serve(storage, host=host, port=port, say=say)


@click.command("token")
@storage_option
@click.option("--study", help="The only study that it is for.  [default: it may do all]")
@click.option("--name", metavar="NAME", help="What to call it.  [default: the study's name, or `all`]")
@click.option("--list", "as_list", is_flag=True, help="List the tokens that there are, by name.")
@click.option("--revoke", metavar="NAME", help="Make the token of this name good for nothing.")
def token_command(storage: str, study: str | None, name: str | None, as_list: bool, revoke: str | None) -> None:
    """Make a token of the service: it is shown once, and only its hash is kept."""
    if sum((as_list, revoke is not None, study is not None or name is not None)) > 1:
        raise click.UsageError("--list and --revoke stand alone.")
    with opened(storage, create=True) as database:
        tokens = Tokens(database.db)
        if as_list:
            for right in tokens.all():
                say(f"{printable(right.name)}: {'all' if right.study is None else f'study {printable(right.study)}'}")
        elif revoke is not None:
            if not tokens.revoke(revoke):
                raise InvalidInput(f"--revoke {printable(revoke)}: there is no token of that name. --list shows them.")
            say(f"revoked: {printable(revoke)}")
        else:
            name = name or study or "all"
            if len(name) > LONGEST_TOKEN_NAME or not name.isprintable():
                raise InvalidInput(f"--name: give at most {LONGEST_TOKEN_NAME} letters that can be printed.")
            say(tokens.make(Right(name, None if study is None else checked_name(study))))


COMMANDS = (serve_command, token_command)
"""Those of this module."""
