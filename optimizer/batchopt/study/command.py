"""Trials that are commands of any kind: a process for each step, whose output tells its epochs."""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from batchopt.errors import InvalidInput, TaskFailed
from batchopt.events import Noted, Opened, Stepped
from batchopt.measured import Epoch, is_number
from batchopt.signals import Interruption
from batchopt.store.history import count_states
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.command_line import Command
from batchopt.study.command_output import Output, size_of
from batchopt.study.finding import best_of
from batchopt.study.jobs import JobSession, Work
from batchopt.study.session import Verdict

DEATHS_ALLOWED = 3
"""By signal 9 in a row, without an epoch between, before a trial counts as what cannot be trained."""

TERM_SECONDS = 10.0
"""What a process that was asked to end may take for it."""

OUT_OF_MEMORY = re.compile(
    r"out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED|ResourceExhausted|"
    r"^MemoryError",
    re.IGNORECASE | re.MULTILINE,
)

ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""What tells NVIDIA's and AMD's libraries which devices there are."""


class CommandLoop:
    """Runs a session with a command until there are no more steps.

    Args:
        session: decides, and keeps what comes back.
        command: what trains.
        workers: how many processes at once.
        devices: of each of them in turn, as CUDA_VISIBLE_DEVICES has it, or `cpu`; what there is where empty.
        interruption: looked at several times a second.
    """

    def __init__(
        self,
        session: JobSession,
        command: Command,
        *,
        workers: int,
        devices: Sequence[str],
        interruption: Interruption,
    ) -> None:
        self._session = session
        self._command = command
        self._workers = workers
        self._devices = devices or [""]
        self._machine = socket.gethostname()
        self._interruption = interruption
        self._held: dict[int, tuple[str, subprocess.Popen[str]]] = {}
        self._said_of_more = False
        self._stopped = threading.Event()
        self._errors: list[BaseException] = []
        self._client = f"tune-{os.getpid()}-{secrets.token_hex(8)}"

    def run(self) -> None:
        """Go on until the study is done.

        Raises:
            TaskFailed: the command failed; its trial is the next one's to train.
            Interrupted: by a signal; every process has ended.
            StorageError: the database refuses.
        """
        self._session.listener(self._opened())
        threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(self._workers)]
        for thread in threads:
            thread.start()
        beat = time.monotonic()
        try:
            while any(thread.is_alive() for thread in threads) and not self._errors:
                self._interruption.check()
                time.sleep(0.1)
                if time.monotonic() - beat > self._session.ledger.records.lease_seconds / 3:
                    beat = time.monotonic()
                    self._renew()
        finally:
            self._stopped.set()
            for _, process in list(self._held.values()):
                _end(process)
            for thread in threads:
                thread.join(2 * TERM_SECONDS)
        if self._errors:
            raise self._errors[0]
        self._session.end()

    def _opened(self) -> Opened:
        session, ledger = self._session, self._session.ledger
        states = count_states(ledger.database, ledger.study)
        return Opened(
            study=ledger.study.study_name,
            storage=ledger.database.url,
            machine=None,
            engine="",
            timings=(),
            epochs=session.ending.last_epoch,
            metric=session.stamp.metric,
            trials=session.budget.trials,
            finished=sum(count for state, count in states.items() if state not in ("running", "waiting")),
            running=states.get("running", 0),
            best=best_of(ledger.database, ledger.study, session.stamp),
            command=shlex.join(self._command.arguments),
        )

    def _renew(self) -> None:
        for trial, (lease, process) in list(self._held.items()):
            try:
                self._session.telling.renew(trial, lease)
            except LeaseLost:
                # Lost, what it still does is in vain. After its last epoch it may have a model to save.
                if self._session.telling.ended_by(trial, lease) is None:
                    _end(process)

    def _work(self, number: int) -> None:
        client, device = f"{self._client}-{number}", self._devices[number % len(self._devices)]
        try:
            while not self._stopped.is_set():
                work = None
                with suppress(TurnLost):
                    work = self._session.ask_for(client, self._machine, can_pause=self._command.resumes, patience=5.0)
                if work is not None:
                    self._session.listener(Stepped(work.step))
                    with suppress(LeaseLost):
                        self._train(work, device)
                elif self._session.done:
                    return
                else:
                    self._stopped.wait(0.5)
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self._errors.append(error)

    def _train(self, work: Work, device: str) -> None:
        """One process, from its beginning to its end."""
        trial, lease, session = work.step.trial, work.lease, self._session
        epochs, until = session.ending.last_epoch, work.step.until_epoch
        with tempfile.TemporaryDirectory(prefix="batchopt-") as folder:
            checkpoint = Path(folder, "checkpoint")
            if work.from_epoch and (kept := session.telling.state(trial, lease)) is not None:
                checkpoint.write_bytes(kept[1])
            arguments, results = self._command.filled(work, epochs=epochs, device=device, checkpoint=str(checkpoint))
            began_at = size_of(results)
            process = self._started(arguments, device, trial, lease)
            self._held[trial] = (lease, process)
            output = Output(process, results, began_at)
            try:
                epoch, verdict = self._follow(work, output, process)
                code = process.wait()
                if verdict == "pause" and code == 0:
                    self._pause(trial, lease, epoch, checkpoint, output.tail)
                elif verdict != "stop":
                    self._ended_early(trial, lease, code, output.tail, epoch, until)
            finally:
                _end(process)
                self._held.pop(trial, None)

    def _follow(self, work: Work, output: Output, process: subprocess.Popen[str]) -> tuple[int, Verdict]:
        """Tell each epoch of a process until it ends; returns the last one, and what was to come after it."""
        trial, lease, telling = work.step.trial, work.lease, self._session.telling
        epoch, began = work.from_epoch, time.perf_counter()
        verdict: Verdict = "continue"
        for line in output.lines():
            if (found := self._command.value_in(line)) is None:
                continue
            if verdict == "stop":
                if epoch >= work.step.until_epoch:
                    self._say_of_more(epoch)
                continue
            if verdict == "pause":
                self._let_go(trial, lease)
                raise TaskFailed(
                    f"the command goes on after epoch {epoch}, its {{until_epoch}}; its last lines:\n{output.tail}"
                )
            value, seconds = found
            epoch += 1
            if seconds is None:
                seconds = max(0.0, time.perf_counter() - began)
            began = time.perf_counter()
            figures = _figures(epoch, value, seconds, work.step.batch_size, self._session)
            try:
                verdict = telling.tell(trial, lease, lambda size, told=figures: told).result()  # type: ignore[misc]
            except InvalidInput:
                self._let_go(trial, lease)
                raise
            if verdict == "continue" and not self._command.resumes and self._session.gives_up(trial, epoch):
                # It cannot be paused, and its other epochs are not worth having.
                telling.prune(trial, lease)
                verdict = "stop"
            if verdict == "stop" and epoch < work.step.until_epoch:
                _end(process)
        return epoch, verdict

    def _say_of_more(self, epoch: int) -> None:
        """Once: the command tells more values than epochs, as it may mean some that are none."""
        if not self._said_of_more:
            self._said_of_more = True
            self._session.listener(
                Noted(
                    f"the command tells further values of the metric after {epoch}, which is all epochs. Each one that "
                    "is found counts as an epoch, from the first one on: tell one an epoch, or find fewer with --read"
                )
            )

    def _started(self, arguments: Sequence[str], device: str, trial: int, lease: str) -> subprocess.Popen[str]:
        environment = dict.fromkeys(ENVIRONMENT, "" if device == "cpu" else device) if device else {}
        try:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **environment},
                # So that it ends with all that it has started.
                start_new_session=True,
            )
        except OSError as error:
            self._let_go(trial, lease)
            raise InvalidInput(
                f"{arguments[0]}: it cannot be started ({error.strerror}). Check the command."
            ) from error

    def _pause(self, trial: int, lease: str, epoch: int, checkpoint: Path, output: str) -> None:
        """A step has come to its end: what it goes on from is kept with the study, and the trial is anyone's."""
        try:
            content = checkpoint.read_bytes()
        except OSError as error:
            self._let_go(trial, lease)
            raise TaskFailed(
                f"the command was to save its state to {{checkpoint}} before it ends at {{until_epoch}}, and there is "
                f"no file ({error.strerror}); its last lines:\n{output}"
            ) from None
        self._session.telling.keep_state(trial, lease, epoch, content)
        self._session.telling.let_go(trial, lease)

    def _ended_early(self, trial: int, lease: str, code: int, output: str, epoch: int, until: int) -> None:
        """A process ended before its step did."""
        if self._stopped.is_set():
            self._let_go(trial, lease)
            return
        telling = self._session.telling
        if code != 0 and OUT_OF_MEMORY.search(output):
            telling.exceed_memory(trial, lease)
            return
        if code == -signal.SIGKILL:
            if telling.count_death(trial, lease) >= DEATHS_ALLOWED:
                telling.fail(trial, lease, f"the command was killed by signal 9 {DEATHS_ALLOWED} times")
            else:
                telling.let_go(trial, lease)
            return
        telling.let_go(trial, lease)
        if code != 0:
            raise TaskFailed(f"the command ended with exit code {code}; its last lines:\n{output}")
        raise TaskFailed(
            f"the command ended after {epoch} of {until} epochs with "
            f"{self._command.metric!r}. Print it as a line of JSON after each, or use --read; its last lines:\n"
            + output
        )

    def _let_go(self, trial: int, lease: str) -> None:
        with suppress(LeaseLost):
            self._session.telling.let_go(trial, lease)


def _figures(epoch: int, value: float, seconds: float, batch_size: int, session: JobSession) -> Epoch:
    examples = session.stamp.program.train_examples
    return Epoch(
        epoch=epoch,
        train_loss=None if is_number(value) else math.nan,
        train_value=math.nan,
        validation_loss=None,
        value=value,
        train_seconds=seconds,
        evaluation_seconds=0.0,
        steps=math.ceil(examples / batch_size),
        examples_per_second=examples / seconds if seconds > 0 else 0.0,
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started; what does not go when asked is killed."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TERM_SECONDS)
            return
