"""Tokens of the service, kept as hashes, so that a database that is read gives none away."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from batchopt.errors import InvalidInput
from batchopt.store.tables import database_clock, tokens_table

SIGN = "batchopt_"
"""What our tokens begin with, so that whoever finds one in a log or a commit knows what it is."""

TOKEN_BYTES = 32
"""Of chance in a token: with so many a plain hash is as good as a slow one."""


@dataclass(frozen=True)
class Right:
    """What a token allows.

    Attributes:
        name: of the token, for people.
        study: the only one that it is for; None where it may do all.
    """

    name: str
    study: str | None = None

    def covers(self, study: str) -> bool:
        """Whether it is good for a study."""
        return self.study in (None, study)


def hashed(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens of one database."""

    def __init__(self, db: Engine) -> None:
        self._db = db

    def make(self, right: Right) -> str:
        """A new token; it is told here, and never again.

        Raises:
            InvalidInput: another one has its name.
        """
        token, table = SIGN + secrets.token_urlsafe(TOKEN_BYTES), tokens_table
        with self._db.begin() as connection:
            if connection.execute(sa.select(table.c.name).where(table.c.name == right.name)).first() is not None:
                raise InvalidInput(f"--name {right.name}: there is a token of that name. Revoke it, or choose another.")
            values = {"sha256": hashed(token), "name": right.name, "study": right.study, "made_at": database_clock()}
            connection.execute(table.insert().values(values))
        return token

    def right(self, sha256: str) -> Right | None:
        """What the token of a hash allows; None where there is none."""
        table = tokens_table
        query = sa.select(table.c.name, table.c.study).where(table.c.sha256 == sha256)
        with self._db.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Right(row.name, row.study)

    def all(self) -> list[Right]:
        """What each token allows, by name."""
        table = tokens_table
        query = sa.select(table.c.name, table.c.study).order_by(table.c.name)
        with self._db.connect() as connection:
            return [Right(row.name, row.study) for row in connection.execute(query)]

    def revoke(self, name: str) -> bool:
        """Make a token good for nothing; returns whether there was one of that name."""
        with self._db.begin() as connection:
            return connection.execute(tokens_table.delete().where(tokens_table.c.name == name)).rowcount > 0
