"""`batchopt serve` and `batchopt token`: studies over HTTP."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from batchopt.cli.terminal import DEFAULT_STORAGE, say
from batchopt.errors import InvalidInput

_tokens_option = click.option(
    "--tokens",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Hashes of the tokens that may in.",
)


@click.command("serve")
@click.option("--storage", default=DEFAULT_STORAGE, show_default=True, help="Database: a path or an SQLAlchemy URL.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8089, show_default=True)
@_tokens_option
def serve_command(storage: str, host: str, port: int, tokens: Path | None) -> None:
    """Serve studies over HTTP, to jobs in any framework; /docs describes it."""
    _check_installed()
    import uvicorn

    from batchopt.service.app import make_app
    from batchopt.service.auth import Door, Tokens, check_address
    from batchopt.store.address import storage_url
    from batchopt.store.making import quiet_optuna

    storage_url(storage)
    kept = None if tokens is None else Tokens(tokens)
    check_address(host, kept)
    if tokens is not None and not tokens.exists():
        raise InvalidInput(f"--tokens {tokens}: there is no such file. `batchopt token --tokens {tokens}` makes it.")
    say(f"http://{host}:{port}/docs describes it; Ctrl-C ends it")
    with quiet_optuna():
        uvicorn.run(make_app(storage, Door(kept)), host=host, port=port, log_level="warning")


@click.command("token")
@_tokens_option
@click.option("--study", help="The one study that it is for.  [default: all]")
def token_command(tokens: Path | None, study: str | None) -> None:
    """Make a token, print it, and keep its hash; it cannot be printed again."""
    _check_installed()
    from batchopt.service.auth import EVERYTHING, Tokens

    if tokens is None:
        raise InvalidInput("--tokens: name the file in which the hash is kept, the one that `batchopt serve` is given.")
    say(Tokens(tokens).make(study or EVERYTHING))


def _check_installed() -> None:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise InvalidInput("the service needs FastAPI and uvicorn. Run `pip install 'batchopt[service]'`.")


COMMANDS = (serve_command, token_command)
