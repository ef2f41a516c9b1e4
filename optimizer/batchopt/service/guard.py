"""Who may speak to the service, and how much: tokens, bodies that are too large, and a line of log for each call.

Where there is no token at all, the service is for this machine alone, and so are the names it may be asked for by: a
page of another site may have a name of its own point here, and send a browser's calls along.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchopt.errors import InvalidInput, StorageError
from batchopt.question.options import CHECKPOINT_LIMIT
from batchopt.store.access import is_file
from batchopt.store.database import open_database
from batchopt.store.tokens import Right, Tokens, hashed
from batchopt.store.transactions import Transactions
from batchopt.text import printable

BODY_LIMIT = 64 * 1024
"""Bytes of what a job says: a question with all its batch sizes has a tenth of them."""

CHECKPOINT_PATH = re.compile(r"/v1/studies/[^/]+/trials/[0-9]+/checkpoint")
"""The paths to which trials' states are put, which may be larger."""

DRAINED_BYTES = 64 << 20
"""Of a body that was refused."""

FRESH_S = 5.0
"""How long what the database said of tokens is believed: so long a revoked one may still be good."""

LONGEST_PATH = 200

OPEN_PATHS = ("/healthz",)
"""What may be asked without a token."""

DESCRIBING_PATHS = ("/docs", "/openapi.json")
"""What whoever has a token may read."""

STUDY_PATH = re.compile(r"/(?:v1/)?studies/([^/]+)")

log = logging.getLogger("batchopt.service")


class Keys:
    """The tokens that a server knows.

    Args:
        storage: a path or an SQLAlchemy URL; made where it is not there.

    Raises:
        StorageError: the database cannot be used.
    """

    def __init__(self, storage: str) -> None:
        database = open_database(storage, create=True)
        self._close = database.db.dispose
        self._tokens = Tokens(database.db)
        self._transactions = Transactions(database.db.url, patience=FRESH_S)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Right, float]] = {}
        self._needed, self._looked = True, -FRESH_S
        self.needed()

    def close(self) -> None:
        """Close the database."""
        self._close()

    def needed(self) -> bool:
        """Whether there is any token, so that one is asked for."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                self._needed = bool(self._transactions.again(self._tokens.all))
                self._looked = time.monotonic()
            return self._needed

    def at_hand(self, token: str) -> bool:
        """Whether what is asked of a token is answered without the database, and so without waiting."""
        now = time.monotonic()
        known = self._known.get(hashed(token)) if self._needed else None
        fresh = not self._needed or not token or (known is not None and now - known[1] < FRESH_S)
        return fresh and now - self._looked < FRESH_S

    def right(self, token: str) -> Right | None:
        """What a token allows; None where it is none of ours."""
        sha256 = hashed(token)
        with self._lock:
            known = self._known.get(sha256)
            if known is not None and time.monotonic() - known[1] < FRESH_S:
                return known[0]
            self._known.pop(sha256, None)
            right = self._transactions.again(lambda: self._tokens.right(sha256))
            if right is not None:
                self._known[sha256] = (right, time.monotonic())
            return right


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine's own, that no other one reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(host: str, keys: Keys, storage: str) -> None:
    """Refuse to be reached by other machines without a token.

    Raises:
        InvalidInput: saying what to do.
    """
    if not is_local(host) and not keys.needed():
        where = "" if is_file(storage) else " with the same --storage"
        raise InvalidInput(
            f"--host {printable(host)}: other machines would reach the service, and nobody is asked for a token. Make "
            f"one with `batchopt token`{where}, or serve on 127.0.0.1."
        )


class Guard:
    """An application behind its door.

    Args:
        app: what is guarded.
        keys: who may speak to it.
        limit, state_limit: bytes of a body, and of a trial's state.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, *, limit: int = BODY_LIMIT, state_limit: int = CHECKPOINT_LIMIT
    ) -> None:
        self._app = app
        self._keys = keys
        self._limit = limit
        self._state_limit = state_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._let_in(scope, receive, noting)
        finally:
            took = time.monotonic() - began
            answers: Counter[tuple[str, int]] = scope["app"].state.answers
            answers[printable(scope["method"])[:10], status] += 1
            # The path alone: what stands behind it, and in headers, may be a secret.
            path = printable(scope["path"])[:LONGEST_PATH]
            log.info("%s %s %d %.0f ms", printable(scope["method"])[:10], path, status, 1000 * took)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self._keys.at_hand(_token(headers)):
                refusal = self._refusal(scope["path"], headers)
            else:
                refusal = await run_in_threadpool(self._refusal, scope["path"], headers)
        except StorageError as error:
            refusal = (503, str(error))
        state = scope["method"] == "PUT" and CHECKPOINT_PATH.fullmatch(scope["path"]) is not None
        limit = self._state_limit if state else self._limit
        told = headers.get("content-length", "0")
        less = "Keep it elsewhere, and PUT its address as ?uri=." if state else "Send less."
        too_large = f"the body is above {limit} bytes. {less}"
        if refusal is None and (not told.isascii() or not told.isdigit() or int(told[:20]) > limit):
            refusal = (413, too_large)
        if refusal is not None:
            await _refuse(receive, send, *refusal)
            return
        read = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise HTTPException(413, too_large, headers={"Connection": "close"})
            return message

        await self._app(scope, limited, send)

    def _refusal(self, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name, foreign = urlsplit(f"//{host}").hostname or "", bool(origin) and urlsplit(origin).netloc != host
        except ValueError:
            return 400, "the headers Host and Origin name no host."
        if foreign:
            # A browser sends a password along whatever page asks it to.
            return 403, "a page of another site may not speak to this service."
        if not self._keys.needed():
            if is_local(name):
                return None
            return 403, "without a token the service is for this machine alone: ask for it as http://127.0.0.1."
        if path in OPEN_PATHS:
            return None
        token = _token(headers)
        right = self._keys.right(token) if token else None
        if right is None:
            return 401, "a token of this service is needed: Authorization: Bearer batchopt_..."
        study = STUDY_PATH.match(path)
        if study is None and right.study is not None and path not in DESCRIBING_PATHS:
            return 403, f"this token is for one study: /studies/{printable(right.study)}."
        if study is not None and not right.covers(study[1]):
            return 403, "this token is for another study."
        return None


def _token(headers: Mapping[str, str]) -> str:
    """What a call says as its token, or a browser as its password; empty where it says none."""
    scheme, _, said = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(said, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return said.strip() if scheme.lower() == "bearer" else ""


async def _refuse(receive: Receive, send: Send, status: int, text: str) -> None:
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        # The second has a browser ask for it.
        headers += [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="batchopt: token"')]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # Who is still speaking hears no answer on a connection that is closed: some of it is read, and kept nowhere.
    read, more = 0, True
    while more and read < DRAINED_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    await send({"type": "http.response.body", "body": b""})
