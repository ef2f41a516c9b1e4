"""`batchopt serve`: studies for jobs in any framework and language, over HTTP."""

from __future__ import annotations

import click

from batchopt.cli.terminal import say, storage_option
from batchopt.errors import InvalidInput
from batchopt.question.options import LEASE_SECONDS, Options

PORT = 8077


@click.command("serve")
@storage_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 for any that is free.")
@click.option(
    "--lease",
    type=float,
    default=LEASE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="After which a trial whose job says nothing is another's.",
)
def serve_command(storage: str, host: str, port: int, lease: float) -> None:
    """Serve studies to jobs in any framework and language, over HTTP.

    A job asks for a step, tells each epoch, and is told what comes next; `GET /docs` shows how.
    """
    try:
        from batchopt.service.serving import serve
    except ModuleNotFoundError as error:
        raise InvalidInput(f"serve needs {error.name}: `pip install 'batchopt[service]'`.") from None
    serve(storage, host=host, port=port, options=Options(lease=lease), say=say)


COMMANDS = (serve_command,)
"""Those of this module."""
