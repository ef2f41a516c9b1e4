"""Who may speak to the service, and what it is to be told: tokens, and what is refused without a trace."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import sqlalchemy as sa
from batchopt.cli.batchopt import batchopt
from click.testing import CliRunner
from served import QUESTION, Server

HELD = {"lease": f"{'0' * 32}.{'0' * 32}.{'0' * 12}"}
EPOCH = HELD | {"epoch": 1, "value": 0.5, "seconds": 1.0}
ASK = {"client_id": "a", "machine": "abacus"}
TRIAL = "/v1/studies/{study}/trials/0"

BAD = {
    "no study's name": ("PUT", "/v1/studies/-x", QUESTION, 400),
    "a path for a name": ("PUT", "/v1/studies/..%2f..%2fetc%2fpasswd", QUESTION, 404),
    "a long name": ("PUT", f"/v1/studies/{'x' * 200}", QUESTION, 400),
    "no JSON": ("PUT", "/v1/studies/new", "{", 400),
    "no object": ("PUT", "/v1/studies/new", [], 400),
    "nothing": ("PUT", "/v1/studies/new", None, 400),
    "an unknown word": ("PUT", "/v1/studies/new", QUESTION | {"batchsizes": [1]}, 400),
    "a number in quotes": ("PUT", "/v1/studies/new", QUESTION | {"train_examples": "1000"}, 400),
    "true for a number": ("PUT", "/v1/studies/new", QUESTION | {"trials": True}, 400),
    "no batch sizes": ("PUT", "/v1/studies/new", QUESTION | {"batch_sizes": []}, 400),
    "too many batch sizes": ("PUT", "/v1/studies/new", QUESTION | {"batch_sizes": list(range(1, 2000))}, 400),
    "a batch size of 0": ("PUT", "/v1/studies/new", QUESTION | {"batch_sizes": [0]}, 400),
    "a reversed range": ("PUT", "/v1/studies/new", QUESTION | {"batch_sizes": {"low": 64, "high": 16}}, 400),
    "reversed rates": ("PUT", "/v1/studies/new", QUESTION | {"learning_rates": {"low": 0.1, "high": 0.01}}, 400),
    "a rate that is NaN": ("PUT", "/v1/studies/new", '{"learning_rates": {"low": NaN, "high": 1}}', 400),
    "no epochs": ("PUT", "/v1/studies/new", QUESTION | {"goal": {"epochs": 0}}, 400),
    "time without a target": ("PUT", "/v1/studies/new", QUESTION | {"goal": {"kind": "time"}}, 400),
    "97 for 97 %": ("PUT", "/v1/studies/new", QUESTION | {"goal": {"kind": "time", "target": 97}}, 400),
    "a metric's markup": ("PUT", "/v1/studies/new", QUESTION | {"metric": {"name": "<script>"}}, 400),
    "a deep nest": ("PUT", "/v1/studies/new", "[" * 100_000, 400),
    "a large integer": ("PUT", "/v1/studies/new", '{"trials": 1' + "0" * 5000 + "}", 400),
    "half of a letter": ("POST", "/v1/studies/{study}/trials:ask", '{"client_id": "\\ud800"}', 400),
    "no client": ("POST", "/v1/studies/{study}/trials:ask", {"machine": "abacus"}, 400),
    "a client without a name": ("POST", "/v1/studies/{study}/trials:ask", ASK | {"client_id": " "}, 400),
    "a client of many letters": ("POST", "/v1/studies/{study}/trials:ask", ASK | {"client_id": "x" * 300}, 400),
    "a client that clears the screen": ("POST", "/v1/studies/{study}/trials:ask", ASK | {"client_id": "\x1b[2J"}, 400),
    "no such study": ("POST", "/v1/studies/absent/trials:ask", ASK, 404),
    "no such trial": ("POST", "/v1/studies/{study}/trials/7/epochs", EPOCH, 412),
    "a trial below 0": ("POST", "/v1/studies/{study}/trials/-1/epochs", EPOCH, 400),
    "a huge trial": ("POST", "/v1/studies/{study}/trials/99999999999999999999/epochs", EPOCH, 400),
    "another's lease": ("POST", f"{TRIAL}/epochs", EPOCH, 412),
    "no lease": ("POST", f"{TRIAL}/epochs", {"epoch": 1, "value": 0.5, "seconds": 1.0}, 400),
    "a lease that is a pattern": ("POST", f"{TRIAL}/epochs", EPOCH | {"lease": "%"}, 400),
    "epoch 0": ("POST", f"{TRIAL}/epochs", EPOCH | {"epoch": 0}, 400),
    "half an epoch": ("POST", f"{TRIAL}/epochs", EPOCH | {"epoch": 1.5}, 400),
    "no value": ("POST", f"{TRIAL}/epochs", HELD | {"epoch": 1, "seconds": 1.0}, 400),
    "seconds that are NaN": ("POST", f"{TRIAL}/epochs", '{"epoch": 1, "value": 1, "seconds": NaN}', 400),
    "seconds below 0": ("POST", f"{TRIAL}/epochs", EPOCH | {"seconds": -1.0}, 400),
    "bytes without end": ("POST", f"{TRIAL}/epochs", EPOCH | {"peak_bytes": 1 << 70}, 400),
    "no reason": ("POST", f"{TRIAL}:fail", HELD | {"why": ""}, 400),
    "a long reason": ("POST", f"{TRIAL}:fail", HELD | {"why": "x" * 501}, 400),
    "no such verb": ("POST", f"{TRIAL}:explode", HELD, 404),
    "no such method": ("DELETE", "/v1/studies/{study}", None, 405),
    "a large body": ("POST", f"{TRIAL}/epochs", " " * (1 << 20) + "{}", 413),
}


def rows(server: Server) -> dict[str, list[Any]]:
    """All that the database holds, but when a study was last looked after."""
    engine = sa.create_engine(server.storage)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        found = {name: sorted(map(str, connection.execute(sa.text(f"SELECT * FROM {name}")))) for name in names}
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def asked(server: Server) -> dict[str, list[Any]]:
    """The rows of a database with a study `bad` and a trial that somebody trains."""
    server.put("bad")
    assert server.ask("holder", "bad").json()["trial"] == 0
    return rows(server)


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_in_a_line_and_leaves_no_trace(
    name: str, server: Server, asked: dict[str, list[Any]]
) -> None:
    method, path, body, status = BAD[name]
    said = (
        {"content": body, "headers": {"Content-Type": "application/json"}} if isinstance(body, str) else {"json": body}
    )
    answer = server.http.request(method, path.format(study="bad"), **said)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert isinstance(error, str) and 0 < len(error) <= 500 and error.isprintable()
    assert rows(server) == asked


def test_a_page_of_another_site_is_refused(server: Server) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        answer = server.http.put("/v1/studies/rebound", json=QUESTION, headers=headers)
        assert answer.status_code == 403 and "this machine alone" in answer.json()["error"]
    simple = server.http.put("/v1/studies/rebound", content="{}", headers={"Content-Type": "text/plain"})
    assert simple.status_code == 400


def test_a_body_without_a_length_is_read_up_to_its_limit(server: Server) -> None:
    place, process = urlsplit(server.url), psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with socket.create_connection((place.hostname, place.port), timeout=20) as speaking:
        head = f"PUT /v1/studies/endless HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nTransfer-Encoding: chunked\r\n"
        speaking.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        for _ in range(1024):
            speaking.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert b" 413 " in speaking.recv(200)
    assert process.memory_info().rss - before < 16 << 20


def token(storage: str, *options: str) -> str:
    ended = CliRunner().invoke(batchopt, ["token", "--storage", storage, *options])
    assert ended.exit_code == 0, ended.exception
    return ended.output.strip()


def test_tokens_of_a_database(storage: str) -> None:
    whole, mine, gone = token(storage), token(storage, "--study", "mine"), token(storage, "--name", "gone")
    assert len({whole, mine, gone}) == 3 and all(each.startswith("batchopt_") for each in (whole, mine, gone))
    assert token(storage, "--list").splitlines() == ["all: all", "gone: all", "mine: study mine"]
    assert token(storage, "--revoke", "gone") == "revoked: gone"
    for wrong in (["--revoke", "gone"], ["--study", "mine"], ["--name", "x" * 200]):
        assert CliRunner().invoke(batchopt, ["token", "--storage", storage, *wrong]).exit_code != 0
    content = Path(sa.make_url(storage).database or "").read_bytes()
    assert not any(each.encode() in content for each in (whole, mine, gone))

    server = Server(storage, "--host", "0.0.0.0")
    url = server.url.replace("0.0.0.0", "127.0.0.1")

    def put(study: str, given: str | None) -> httpx.Response:
        headers = {} if given is None else {"Authorization": f"Bearer {given}"}
        return httpx.put(f"{url}/v1/studies/{study}", json=QUESTION, headers=headers, timeout=60)

    assert httpx.get(f"{url}/healthz").status_code == 200
    for given in (None, "batchopt_wrong", gone, whole + "x"):
        refused = put("mine", given)
        assert refused.status_code == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
    assert put("mine", mine).status_code == 201 and put("mine", whole).status_code == 200
    other = put("other", mine)
    assert other.status_code == 403 and other.json() == {"error": "this token is for another study."}
    assert put("other", whole).status_code == 201
    assert httpx.get(f"{url}/docs").status_code == 401
    _, err = server.stop()
    assert "PUT /v1/studies/mine 201" in err and "batchopt_" not in err and "Traceback" not in err


def test_tokens_of_a_file(storage: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# ours\n0123456789abcdef\nfedcba9876543210 mine\n")
    server = Server(storage, "--token-file", str(tokens), token="fedcba9876543210")
    assert server.put("mine").status_code == 201 and server.put("other").status_code == 403
    _, err = server.stop()
    assert "0123456789abcdef" not in err and "fedcba9876543210" not in err
    for text in ("", "short\n", "0123456789abcdef mine yours\n"):
        tokens.write_text(text)
        command = ["serve", "--storage", storage, "--token-file", str(tokens)]
        refused = CliRunner().invoke(batchopt, command)
        assert refused.exit_code != 0 and "--token-file" in str(refused.exception), refused.output
        assert not text.strip() or text.split()[0] not in str(refused.exception)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_address_without_a_token_is_refused(host: str, storage: str) -> None:
    refused = CliRunner().invoke(batchopt, ["serve", "--storage", storage, "--host", host])
    assert refused.exit_code != 0
    assert "nobody is asked for a token" in str(refused.exception) and "batchopt token" in str(refused.exception)
