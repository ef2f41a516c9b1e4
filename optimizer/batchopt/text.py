"""What others have written, made fit to show: text of a database, a URL that may hold a password, an error."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"

SECRET = re.compile(r"pass|pwd|secret|token|key|cred|auth|sign?$|signature|odbc_connect", re.IGNORECASE)
"""Names of what a URL may hold in its query, and nobody is to see."""

SCHEME = re.compile(r"[^/@]*:?//+|[^/@:]*:/+|[^/@:]*:(?=[^@]*:.*@)", re.DOTALL)
"""What a URL begins with, typing errors such as a missing colon or slash included."""

PATH = re.compile(r"sqlite(\+pysqlite)?:///|/(?!/)|[.~]", re.DOTALL)
"""How a path begins, in which `:` and `@` are letters like others."""

SHORTEST_SECRET = 3
"""A shorter one is not searched for in what others say: it would be found in ordinary words."""


def printable(text: object, *, lines: bool = False) -> str:
    r"""Text as something to read and nothing else.

    What moves a cursor, colours, ends a line or turns the direction of writing round is shown as Python writes it
    (`\x1b`, `\n`, `\u202e`).

    Args:
        text: by whomever.
        lines: whether it may have several lines; ends of lines and tabs then stay.
    """
    text = str(text)
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def cell(value: object) -> object:
    """A value as a cell of a table that a spreadsheet may open: text is printable, and no formula.

    Source: OWASP, CSV Injection: cells that begin with one of these are computed, and may run commands.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def first_line(error: BaseException | str) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines:
        return printable(lines[0]).rstrip(".")
    return "" if isinstance(error, str) else type(error).__name__


def shown_url(text: str) -> str:
    """A URL, or what was meant to be one, without any password.

    A password may hold what should have been quoted in it, so everything from the first colon behind the scheme to the
    last `@` is hidden, and in the query whatever is called a password, a secret, a token or a key. A path is shown as
    it is.
    """
    return printable(_split(text)[0])


def without_secrets(text: str, url: str) -> str:
    """What a driver or a file system says of a URL, without the passwords in it."""
    said, secrets = text.replace(url, shown_url(url)), _split(url)[1]
    # A part of one may have been taken for the name of a host.
    secrets += [part for secret in secrets for part in re.split("[@/:&]", secret)]
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            said = said.replace(secret, HIDDEN)
    return said


def _split(text: str) -> tuple[str, list[str]]:
    """A URL with its secrets hidden; and these."""
    secrets: list[str] = []
    scheme, rest = "", text
    if found := SCHEME.match(text):
        scheme, rest = found[0], text[found.end() :]
    user, at, place = rest.rpartition("@")
    if at and not PATH.match(text):
        name, colon, password = user.partition(":")
        if colon and password:
            secrets.append(password)
            rest = f"{name}:{HIDDEN}@{place}"
    before, mark, query = rest.partition("?")
    if mark:
        rest = f"{before}?{_hidden_in_query(query, secrets)}"
    return scheme + rest, secrets


def _hidden_in_query(query: str, secrets: list[str]) -> str:
    shown: list[str] = []
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if equals and SECRET.search(key):
            secrets.append(value)
            shown.append(f"{key}={HIDDEN}")
        elif equals or not (shown and shown[-1].endswith(HIDDEN)):
            shown.append(part)
        else:
            # The rest of a password with an `&` in it.
            secrets.append(part)
    return "&".join(shown)
