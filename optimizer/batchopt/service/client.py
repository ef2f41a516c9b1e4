"""A client of `batchopt serve` in one file: Python 3.9 and its standard library, to be copied into any project.

from client import Done, ask

while True:
    try:
        with ask("http://127.0.0.1:8089", "my-study") as trial:
            model = build(trial.learning_rate)
            for epoch in trial.epochs():
                trial.tell(train_one_epoch(model, trial.batch_size))
    except Done as done:
        print(done.recommendation)
        break
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Iterator  # noqa: UP035  Python 3.9

PATIENCE_S = 300.0
"""How long a server may be away before a job gives up."""

RELEASE_PATIENCE_S = 5.0
"""The same for letting a trial go, by a job that has to end: what is not released expires by itself."""

TIMEOUT_S, LONGEST_PAUSE_S = 60.0, 10.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OUT_OF_MEMORY = ("out of memory", "out_of_memory", "resourceexhausted", "cudnn_status_alloc_failed")
"""What frameworks say, in small letters, where a batch does not fit."""

CLIENT = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Refused(Exception):
    """The server does not do what was asked.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class LeaseLost(Refused):
    """The trial is another job's by now: what is done for it here is in vain."""


class Done(Exception):
    """The study has no more trials.

    Attributes:
        recommendation: what to use, as the service's report has it; None where it has none.
    """

    def __init__(self, why: str, recommendation: Any) -> None:
        super().__init__(why)
        self.recommendation = recommendation


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the token to wherever it leads, and make a GET of a POST."""

    def redirect_request(self, *of: Any) -> None:
        """As urllib has it."""


class Server:
    """A service, and a token for it. A proxy of the environment is used, but not on the way to this machine itself.

    Args:
        url: where it is, http or https.
        token: None where it asks for none.
        patience: seconds for which it may be away.
    """

    def __init__(self, url: str, token: str | None = None, patience: float = PATIENCE_S) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a service. Write it as http://127.0.0.1:8089.")
        self.url = url.rstrip("/")
        self.token = token
        self.patience = patience
        proxies = urllib.request.ProxyHandler({} if parts.hostname in LOOPBACK else None)
        self._opener = urllib.request.build_opener(proxies, _Stay)

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | bytes | None = None,
        lease: str = "",
        patience: float | None = None,
    ) -> tuple[int, Any, float]:
        """One request, again where the server is away; each that the service has may be made twice without harm.

        Args:
            patience: seconds for which it may be away; as given to the server where None.

        Returns:
            Its status; its JSON document, bytes of another kind, or None; and after how many seconds to come again.

        Raises:
            Refused: by a status from 300 on, 410 left out.
            OSError: it stayed away.
        """
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if lease:
            headers["If-Match"] = f'"{lease}"'
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        patience = self.patience if patience is None else patience
        until, pause = time.monotonic() + patience, 0.1
        while True:
            request = urllib.request.Request(self.url + path, data, headers, method=method)
            try:
                with self._opener.open(request, timeout=min(TIMEOUT_S, max(patience, 1.0))) as answer:
                    text, later = answer.read(), float(answer.headers.get("Retry-After", 1))
                    if answer.headers.get_content_type() == "application/json" and text:
                        return answer.status, json.loads(text), later
                    return answer.status, text or None, later
            except urllib.error.HTTPError as error:
                with error:
                    status, text = error.code, error.read()
                if status < 400:
                    place = error.headers.get("Location")
                    said = f"the service is not here: it points to {place}. Use the address that it has there."
                    raise Refused(status, said) from None
                if status < 500 and status != 429:
                    return self._refusal(status, text)
                problem: Exception = Refused(status, text.decode(errors="replace")[:500])
            except (OSError, ValueError) as error:
                # Refused, reset, timed out, or cut in the middle of an answer.
                problem = error
            except Exception as error:
                if type(error).__module__ != "http.client":
                    raise
                problem = OSError(str(error))
            if time.monotonic() + pause > until:
                raise problem
            time.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _refusal(self, status: int, text: bytes) -> tuple[int, Any, float]:
        try:
            document = json.loads(text)
        except ValueError:
            document = {"error": text.decode(errors="replace")[:500]}
        if status == 410:
            return status, document, 0.0
        said = document.get("error", str(document)) if isinstance(document, dict) else str(document)
        raise (LeaseLost if status == 412 else Refused)(status, said)


class Trial:
    """A step of a trial; to be used in a `with`, which ends it.

    Attributes:
        number, batch_size, learning_rate, extra: what to train; `metric` is what to tell.
        from_epoch, until_epoch: which epochs, the first one left out.
        lost: whether it is another job's by now.
    """

    def __init__(self, server: Server, study: str, given: dict[str, Any]) -> None:
        self.number: int = given["trial"]
        self.batch_size: int = given["batch_size"]
        self.learning_rate: float = given["learning_rate"]
        self.extra: dict[str, Any] = given["extra"]
        self.metric: str = given["metric"]
        self.from_epoch: int = given["from_epoch"]
        self.until_epoch: int = given["until_epoch"]
        self.lost = False
        self._server = server
        self._path = f"/v1/studies/{urllib.parse.quote(study, safe='')}/trials/{self.number}"
        self._lease: str = given["lease"]
        self._seconds: float = given["lease_seconds"]
        self._epoch = self.from_epoch
        self._verdict = "continue"
        self._began = time.perf_counter()
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._on_term: Any = None

    def epochs(self) -> Iterator[int]:
        """The epochs to train, from 1; each is to be told before the next. Raises LeaseLost."""
        while self._verdict == "continue" and self._epoch < self.until_epoch:
            self._check()
            before, self._began = self._epoch, time.perf_counter()
            yield self._epoch + 1
            if self._epoch == before:
                raise RuntimeError("an epoch was trained and not told. Call trial.tell(value) in each.")

    def tell(self, value: float, seconds: float | None = None, **figures: Any) -> str:
        """Tell what an epoch came to.

        Args:
            value: the study's metric after it.
            seconds: that training took; since the epoch began where None.
            figures: `loss`, `validation_loss`, `energy_joules`, `peak_memory_bytes`, `examples`, where they are known.

        Returns:
            "continue", "pause" or "stop".

        Raises:
            LeaseLost: the trial is another job's.
        """
        self._check()
        took = time.perf_counter() - self._began if seconds is None else float(seconds)
        body = {"epoch": self._epoch + 1, "value": float(value), "seconds": took, **figures}
        self._verdict = self._post("/epochs", body)["verdict"]
        self._epoch += 1
        return self._verdict

    def save(self, state: bytes = b"", *, uri: str | None = None) -> None:
        """Keep what to go on from after the epoch that was told last: bytes, or the address of what is too large.

        A trial that is told to "pause" without it is trained from its beginning again. Raises LeaseLost.
        """
        where = {"sha256": hashlib.sha256(state).hexdigest()} if uri is None else {"uri": uri}
        query = urllib.parse.urlencode({"epoch": self._epoch, **where})
        self._call("PUT", f"/checkpoint?{query}", state)

    def state(self) -> bytes | str | None:
        """What to go on from, as it was saved: bytes or an address; None where the trial begins. Raises LeaseLost."""
        kept = self._call("GET", "/checkpoint") if self.from_epoch else None
        return kept["uri"] if isinstance(kept, dict) else kept

    def __enter__(self) -> Trial:
        # A scheduler ends a job by SIGTERM, which would end Python without a word to the service.
        at_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if at_default and threading.current_thread() is threading.main_thread():
            self._on_term = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        self._beating.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._over.set()
        try:
            return self._leave(error)
        finally:
            if self._on_term is not None:
                signal.signal(signal.SIGTERM, self._on_term)

    def _leave(self, error: BaseException | None) -> bool:
        if self.lost or isinstance(error, LeaseLost):
            # Nothing is left to be said of it; the next `ask` gives another one.
            return isinstance(error, LeaseLost)
        if error is not None and ran_out_of_memory(error):
            self._post(":out-of-memory")
            return True
        if self._verdict != "stop":
            with contextlib.suppress(Refused, OSError):
                self._post(":release", patience=RELEASE_PATIENCE_S)
        return False

    def _post(self, verb: str, body: dict[str, Any] | None = None, patience: float | None = None) -> Any:
        return self._call("POST", verb, body, patience)

    def _call(self, method: str, verb: str, body: Any = None, patience: float | None = None) -> Any:
        try:
            return self._server.call(method, self._path + verb, body, self._lease, patience)[1]
        except LeaseLost:
            self.lost = True
            raise

    def _check(self) -> None:
        if self.lost:
            raise LeaseLost(412, f"trial {self.number} was taken over by another job")

    def _beat(self) -> None:
        while not self._over.wait(self._seconds / 3):
            try:
                self._post(":renew")
            except LeaseLost:
                # Ended by its last epoch in this moment, or lost.
                return
            except (OSError, Refused):
                continue


def ask(
    url: str,
    study: str,
    *,
    token: str | None = None,
    client_id: str = CLIENT,
    machine: str | None = None,
    can_pause: bool = False,
    largest_batch_size: int | None = None,
    patience: float = PATIENCE_S,
) -> Trial:
    """The next trial to train; waited for where there is none now.

    Args:
        url, token: of the service.
        study: its name there.
        client_id: unlike any other job's; who asks again by the same one gets its own open trial again.
        machine: what it trains on, so that seconds compare; this host's name where None.
        can_pause: whether the job saves what its trials go on from, and goes on from that.
        largest_batch_size: that fits here, where it is known.
        patience: seconds for which the server may be away.

    Raises:
        Done: there are no more.
        Refused: by the service; OSError: it stayed away.
    """
    server = Server(url, token, patience)
    machine = machine or socket.gethostname()
    body: dict[str, Any] = {"client_id": client_id, "machine": machine, "can_pause": can_pause}
    if largest_batch_size is not None:
        body["largest_batch_size"] = largest_batch_size
    path = f"/v1/studies/{urllib.parse.quote(study, safe='')}/trials:ask"
    while True:
        status, given, later = server.call("POST", path, body)
        if status == 410:
            raise Done(given["done"], given["recommendation"])
        if status == 200:
            return Trial(server, study, given)
        time.sleep(later * random.uniform(0.5, 1.5))


def put_study(url: str, study: str, question: dict[str, Any], *, token: str | None = None) -> bool:
    """Make a study, unless it is there; returns whether it is new. Raises Refused where it asks something else."""
    path = f"/v1/studies/{urllib.parse.quote(study, safe='')}"
    return bool(Server(url, token).call("PUT", path, question)[1]["new"])


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a batch did not fit, by its type or else its text."""
    if isinstance(error, MemoryError):
        return True
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, Exception) and any(words in text for words in OUT_OF_MEMORY)
