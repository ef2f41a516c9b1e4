"""A job's side of the service. One file that needs nothing but Python 3.9: copy it into any project.

    with Client("http://127.0.0.1:8077", study="mine") as client:
        for step in client.steps():
            model, data = build(step.learning_rate), batches(step.batch_size)
            for epoch in step:
                seconds, value = train(model, data)
                step.report(value, seconds)

The loop over epochs ends when the study says so, and the loop over steps when the study is done. A thread keeps the
trial while an epoch is trained; what goes wrong on the way is said again until it is heard, which changes nothing where
it was heard already. A job that is interrupted, or raises, lets its trial go at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import platform
import random
import secrets
import signal
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

PATIENCE_S = 300.0
"""How long a server is tried that does not answer."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0

PASSING = (429, 500, 502, 503, 504)
"""Answers after which the same may be said again."""

LOST, DONE, NOTHING_NOW = 412, 410, 204


class ServiceError(Exception):
    """The service refuses, and says why.

    Attributes:
        status: of HTTP; 0 where no server has answered.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is for one server, and is not carried to another."""

    def redirect_request(self, *anything: Any) -> None:
        return None


class Client:
    """A job, as the service knows it.

    Args:
        url: of the service.
        study: that the job works for.
        client_id: the job's name, unlike any other's. One that is the same when the job is started again, such as
            a scheduler's number for it, gives the job its own trial again; a new one where None.
        machine: a name for what it runs on: seconds are compared between those of one name; the host's where None.
        token: of the service; `BATCHOPT_TOKEN` of the environment where None.
        largest_batch_size: that fits there; any where None.
        patience: seconds for which a server is tried that does not answer.
    """

    def __init__(
        self,
        url: str,
        study: str,
        *,
        client_id: str | None = None,
        machine: str | None = None,
        token: str | None = None,
        largest_batch_size: int | None = None,
        patience: float = PATIENCE_S,
    ) -> None:
        self.study = study
        self.client_id = client_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.machine = machine or platform.node() or "a machine"
        self.recommendation: dict[str, Any] | None = None
        """What the study recommends, once it is done."""
        self._url = url.rstrip("/")
        self._token = token or os.environ.get("BATCHOPT_TOKEN", "")
        self._largest = largest_batch_size
        self._patience = patience
        self._step: Step | None = None
        self._terminated: Any = None
        host = urllib.parse.urlsplit(self._url).hostname or ""
        direct = [urllib.request.ProxyHandler({})] if host in ("localhost", "::1") or host.startswith("127.") else []
        self._opener = urllib.request.build_opener(_NoRedirects(), *direct)

    def __enter__(self) -> Client:
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            self._terminated = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, *error: object) -> None:
        if self._step is not None:
            self._step.release()
        if self._terminated is not None:
            signal.signal(signal.SIGTERM, self._terminated)
            self._terminated = None

    def put(self, question: Mapping[str, Any]) -> None:
        """Make the study, unless it is there and asks the same.

        Raises:
            ServiceError: it is there, and asks something else.
        """
        self.call("PUT", "", question)

    def steps(self) -> Iterator[Step]:
        """What to train, one step after the other, until the study is done.

        Raises:
            ServiceError: the service refuses, or has not answered for too long.
            RuntimeError: a step was left without a word.
        """
        said = {"client_id": self.client_id, "machine": self.machine, "largest_batch_size": self._largest}
        while True:
            status, answer, retry = self.call("POST", "/trials:ask", said)
            if status == DONE:
                self.recommendation = answer.get("recommendation")
                return
            if status == NOTHING_NOW:
                time.sleep(retry * random.uniform(0.5, 1.0))
                continue
            step = self._step = Step(self, answer)
            try:
                yield step
                if not step.heard:
                    raise RuntimeError(
                        f"trial {step.trial} was left without a report: iterate over the step, and report"
                    )
            finally:
                step.release()
                self._step = None

    def call(self, method: str, path: str, said: Mapping[str, Any] | None = None) -> tuple[int, Any, float]:
        """Say something to the service about the study, again until it is heard.

        Returns:
            The status, the answer, and after how many seconds to ask again where there is nothing now.

        Raises:
            ServiceError: it refuses, or has not answered for too long.
        """
        url = f"{self._url}/v1/studies/{urllib.parse.quote(self.study, safe='')}{path}"
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        body = None if said is None else json.dumps(said, allow_nan=False).encode()
        until, pause = time.monotonic() + self._patience, FIRST_PAUSE_S
        while True:
            request = urllib.request.Request(url, body, headers, method=method)
            try:
                with self._opener.open(request, timeout=60) as response:
                    text = response.read()
                    retry = float(response.headers.get("Retry-After") or 1)
                    return response.status, json.loads(text) if text else None, retry
            except urllib.error.HTTPError as error:
                with error:
                    answer = _read(error)
                if error.code == DONE:
                    return DONE, answer, 0.0
                trouble = ServiceError(error.code, str(answer.get("error", f"status {error.code}")))
                if error.code not in PASSING:
                    raise trouble from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                trouble = ServiceError(0, f"{self._url} does not answer: {getattr(error, 'reason', None) or error}")
            if time.monotonic() + pause > until:
                raise trouble
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)


class Step:
    """What to train: a loop over it gives the epochs, counted from 1; each is to be reported before the next.

    Attributes:
        trial: its number.
        batch_size: examples per optimizer step.
        learning_rate: as applied.
        extra: values of further dimensions.
        from_epoch: trained already, where the study's jobs keep the states of trials; else 0.
        until_epoch: the last one of this step.
        verdict: `continue`, `pause` where another step comes first, or `stop` where the trial is over.
        lost: whether the trial is another job's by now, so that what is reported is in vain.
        heard: whether anything was reported.
    """

    def __init__(self, client: Client, given: Mapping[str, Any]) -> None:
        self.trial: int = given["trial"]
        self.batch_size: int = given["batch_size"]
        self.learning_rate: float = given["learning_rate"]
        self.extra: dict[str, Any] = given["extra"]
        self.from_epoch: int = given["from_epoch"]
        self.until_epoch: int = given["until_epoch"]
        self.verdict, self.lost, self.heard = "continue", False, False
        self._client = client
        self._lease: str = given["lease"]
        self._epoch = self.from_epoch
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(given["lease_seconds"] / 3,), daemon=True)
        self._heart.start()

    def __iter__(self) -> Iterator[int]:
        while self.verdict == "continue" and not self.lost and self._epoch < self.until_epoch:
            epoch = self._epoch + 1
            yield epoch
            if self.verdict == "continue" and not self.lost and self._epoch < epoch:
                raise RuntimeError(
                    f"epoch {epoch} of trial {self.trial} was not reported: call step.report(value, seconds)"
                )

    def report(self, value: float, seconds: float, *, loss: float | None = None, **known: Any) -> str:
        """Report the epoch; returns the verdict.

        Args:
            value: the study's metric on the validation data; NaN or an infinity where training has diverged.
            seconds: of training, evaluation left out.
            loss: where known; one that is not finite has diverged.
            known: what else is: `validation_loss`, `evaluation_seconds`, `peak_bytes`, `joules`, and `over=True`
                where training has ended by itself.

        Raises:
            ServiceError: the service refuses, or has not answered for too long.
        """
        value, loss = float(value), None if loss is None else float(loss)
        diverged = not math.isfinite(value) or (loss is not None and not math.isfinite(loss))
        said = {
            "epoch": self._epoch + 1,
            "value": None if diverged else value,
            "seconds": float(seconds),
            **({} if loss is None or diverged else {"loss": loss}),
            **known,
        }
        answer = self._say("/epochs", said)
        self._epoch += 1
        self.heard = True
        if answer is not None:
            self.verdict = answer["verdict"]
        return self.verdict

    def complete(self) -> None:
        """Training has ended by itself: the last report is what the trial comes to."""
        self._end(":complete")

    def out_of_memory(self) -> None:
        """It does not fit: neither this batch size nor any larger one is proposed again."""
        self._end(":out-of-memory")

    def diverged(self) -> None:
        """The loss is not finite."""
        self._end(":diverged")

    def fail(self, why: str) -> None:
        """It cannot be trained, for a reason that is not the configuration's."""
        self._end(":fail", why=why[:500] or "no reason given")

    def release(self) -> None:
        """Let the trial go, unless it is over: whoever asks next takes it up."""
        self._ended.set()
        if self.verdict == "continue" and not self.lost:
            self.verdict = "stop"
            # Should it not be heard, the lease ends by itself.
            with contextlib.suppress(ServiceError):
                self._say(":release", {})

    def _end(self, verb: str, **more: Any) -> None:
        self.heard = True
        self._say(verb, more)
        self.verdict = "stop"
        self._ended.set()

    def _say(self, path: str, said: Mapping[str, Any]) -> Any:
        try:
            return self._client.call("POST", f"/trials/{self.trial}{path}", {"lease": self._lease, **said})[1]
        except ServiceError as error:
            if error.status != LOST:
                raise
            self.lost, self.verdict = True, "stop"
            return None

    def _beat(self, seconds: float) -> None:
        """Renew the lease while an epoch is trained; what cannot be said is said with the next report."""
        while not self._ended.wait(seconds):
            with contextlib.suppress(ServiceError):
                self._say(":renew", {})
            if self.lost:
                return


def _read(error: urllib.error.HTTPError) -> dict[str, Any]:
    """What the service says of an error; a proxy's page says nothing."""
    try:
        answer = json.loads(error.read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
