"""Bodies that are too large are refused before they are read, or as soon as they turn out to be."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchopt.question.options import CHECKPOINT_LIMIT

CHECKPOINT = "/checkpoint"
"""How the paths end whose bodies are trials' states."""

MOST_BODY_BYTES = 64 * 1024
"""No question is longer."""


class LimitedBodies:
    """An application whose requests have bodies of at most so many bytes, whatever they announce.

    Args:
        app: behind it.
        most, most_state: bytes of any body, and of a trial's state.
    """

    def __init__(self, app: ASGIApp, most: int = MOST_BODY_BYTES, most_state: int = CHECKPOINT_LIMIT) -> None:
        self._app = app
        self._most = most
        self._most_state = most_state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["method"] == "PUT" and scope["path"].endswith(CHECKPOINT)
        most = self._most_state if state else self._most
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > most:
            await self._refuse(send, most)
            return
        # All of it first: what an application has begun to answer cannot be refused any more.
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > most:
                await self._refuse(send, most)
                return
            if not message.get("more_body", False):
                break
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, send: Send, most: int) -> None:
        text = json.dumps({"error": f"the body is above {most} bytes. Send less."}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(text)).encode()),
            # The rest of it is not read.
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})
