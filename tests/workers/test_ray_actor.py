"""The bridge to a worker of a cluster, without a cluster: nobody passes who does not know the token."""

from __future__ import annotations

import secrets
import socket
import threading

import pytest

pytest.importorskip("ray")

from batchopt.workers.ray_actor import TOKEN_BYTES, _proved

TOKEN = secrets.token_bytes(TOKEN_BYTES)


def met(token: bytes) -> tuple[bool, bool, bytes]:
    """Whether study and actor, who knows a token, believe each other; and what the actor has sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        believed: list[bool] = []

        def call() -> None:
            with socket.create_connection(listener.getsockname()) as actor:
                believed.append(_proved(actor, token, asks=False))
                actor.sendall(b"after it")

        caller = threading.Thread(target=call)
        caller.start()
        study, _ = listener.accept()
        with study:
            proved = _proved(study, TOKEN, asks=True)
            rest = study.recv(100) if proved else b""
        caller.join()
    return proved, believed[0], rest


def test_who_knows_the_token_passes_and_what_follows_is_not_touched() -> None:
    assert met(TOKEN) == (True, True, b"after it")


def test_who_does_not_know_the_token_does_not_pass() -> None:
    assert met(secrets.token_bytes(TOKEN_BYTES)) == (False, False, b"")


def test_who_only_listens_or_says_something_else_does_not_pass_and_does_not_hold_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batchopt.workers.ray_actor.PROOF_SECONDS", 1)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", TOKEN):
        study, caller = socket.socketpair()
        with study, caller:
            caller.sendall(said)
            assert not _proved(study, TOKEN, asks=True)
