"""Who may come in: bearer tokens, of which only hashes are kept.

A token is 256 random bits, so that one round of SHA-256 is as good as many: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path

from fastapi import HTTPException, Request

from batchopt.errors import InvalidInput

EVERYTHING = "*"
"""In the place of a study's name: a token that may do all."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Tokens:
    """The tokens of a file: the hash of each, and for which study it is.

    Args:
        path: of the file; there are none where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """The study of each token, or EVERYTHING, by its hash.

        Raises:
            InvalidInput: the file is none of tokens.
        """
        try:
            stored = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InvalidInput(f"--tokens {self.path}: it cannot be read ({error}). Name a file of tokens.") from None
        if not isinstance(stored, dict) or not all(isinstance(study, str) for study in stored.values()):
            raise InvalidInput(f"--tokens {self.path}: that is no file of tokens. Name another one.")
        return stored

    def make(self, study: str = EVERYTHING) -> str:
        """A new token, which nobody can read again afterwards."""
        token = secrets.token_urlsafe(32)
        kept = self.read() | {_hash(token): study}
        # Whole or not at all, and for nobody else to read.
        number, made = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(number, "w") as file:
            json.dump(kept, file, indent=1)
        Path(made).replace(self.path)
        return token


class Door:
    """Lets requests in by their tokens; all of them where there are no tokens.

    Args:
        tokens: read again for each request, so that a token made now is good at once.
    """

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def check(self, request: Request) -> None:
        """Refuse a request without a token for what it asks."""
        if self._tokens is None or request.url.path == "/healthz":
            return
        known = self._tokens.read()
        if not known:
            return
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        study = known.get(_hash(token)) if kind.lower() == "bearer" else None
        if study is None:
            text = "no token that is known. Send `Authorization: Bearer TOKEN`; `batchopt token` makes one."
            raise HTTPException(401, text, headers={"WWW-Authenticate": "Bearer"})
        if study not in (EVERYTHING, request.path_params.get("study")):
            raise HTTPException(403, "this token is for another study. Ask whoever made it for one for this study.")


def check_address(host: str, tokens: Tokens | None) -> None:
    """Refuse to be reached by others without a token.

    Raises:
        InvalidInput: saying why.
    """
    if host not in LOOPBACK and not (tokens and tokens.read()):
        raise InvalidInput(
            f"--host {host}: whoever reaches that address could read and end every study. "
            "Make a token with `batchopt token` and name its file with --tokens, or leave --host out."
        )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
