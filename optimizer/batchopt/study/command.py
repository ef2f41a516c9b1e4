"""Trials that are commands of any kind: a process for each step, whose output tells its epochs."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from batchopt.errors import InvalidInput, TaskFailed
from batchopt.measured import Epoch
from batchopt.signals import Interruption
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.jobs import JobSession, Work

DEATHS_ALLOWED = 3
"""By signal 9 in a row, without an epoch between, before a trial counts as what cannot be trained."""

TERM_SECONDS = 10.0
"""What a process that was asked to end may take for it."""

TAIL_LINES = 40
"""Of a command's output that are looked at, and shown, where it fails."""

OUT_OF_MEMORY = re.compile(
    r"out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED|ResourceExhausted|"
    r"^MemoryError",
    re.IGNORECASE | re.MULTILINE,
)

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}")


@dataclass(frozen=True)
class Command:
    """What is run for a trial, and how its output is read.

    Attributes:
        arguments: with `{batch_size}`, `{learning_rate}`, `{epochs}` and `{trial}` where these go.
        metric: the key of the study's metric in lines of JSON.
        pattern: in the place of JSON, what finds it in a line: its group `value`, or else its first.

    Raises:
        InvalidInput: no command, a placeholder that is unknown, or a pattern without a group.
    """

    arguments: tuple[str, ...]
    metric: str
    pattern: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        if not self.arguments:
            raise InvalidInput(
                "no command is given. Write it after --, for example -- python train.py --bs {batch_size}."
            )
        program = self.arguments[0]
        if not PLACEHOLDER.search(program) and shutil.which(program) is None:
            raise InvalidInput(f"command {program!r}: there is no such program, or it may not be run. Check its name.")
        known = {"batch_size", "learning_rate", "epochs", "trial"}
        asked = {name for argument in self.arguments for name in PLACEHOLDER.findall(argument)}
        if unknown := asked - known:
            raise InvalidInput(f"placeholder {{{min(unknown)}}} is unknown. Use {', '.join(sorted(known))}.")
        if "batch_size" not in asked:
            raise InvalidInput(
                "the command has no {batch_size}: every trial would train the same. Write it where it goes."
            )
        if self.pattern is not None and not self.pattern.groups:
            raise InvalidInput(f"--read {self.pattern.pattern}: it has no group. Put the number into parentheses.")

    def filled(self, work: Work, epochs: int) -> list[str]:
        """The arguments of one trial; nothing but a placeholder is changed, and no shell sees them."""
        step = work.step
        values = {
            "batch_size": str(step.batch_size),
            "learning_rate": repr(float(step.learning_rate)),
            "epochs": str(epochs),
            "trial": str(step.trial),
        }
        return [PLACEHOLDER.sub(lambda found: values[found[1]], argument) for argument in self.arguments]

    def value_in(self, line: str) -> tuple[float, float | None] | None:
        """The metric, and the seconds of the epoch where they are told, in a line of output; None in any other."""
        if self.pattern is not None:
            found = self.pattern.search(line)
            text = found and (found["value"] if "value" in self.pattern.groupindex else found[1])
            with suppress(TypeError, ValueError):
                return float(text or ""), None
            return None
        if not line.lstrip().startswith("{"):
            return None
        with suppress(ValueError, TypeError, RecursionError):
            told = json.loads(line)
            if self.metric in told:
                seconds = told.get("seconds")
                return float(told[self.metric]), None if seconds is None else float(seconds)
        return None


class CommandLoop:
    """Runs a session with a command until there are no more steps.

    Args:
        session: decides, and keeps what comes back.
        command: what trains.
        workers: how many processes at once.
        interruption: looked at several times a second.
    """

    def __init__(self, session: JobSession, command: Command, *, workers: int, interruption: Interruption) -> None:
        self._session = session
        self._command = command
        self._workers = workers
        self._interruption = interruption
        self._held: dict[int, tuple[str, subprocess.Popen[str]]] = {}
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

    def _renew(self) -> None:
        for trial, (lease, process) in list(self._held.items()):
            try:
                self._session.telling.renew(trial, lease)
            except LeaseLost:
                # Lost, or ended in this moment: what it still does is in vain.
                _end(process)

    def _work(self, number: int) -> None:
        try:
            while not self._stopped.is_set():
                work = None
                with suppress(TurnLost):
                    work = self._session.ask_for(f"{self._client}-{number}", "", can_pause=False, patience=5.0)
                if work is not None:
                    with suppress(LeaseLost):
                        self._train(work)
                elif self._session.done:
                    return
                else:
                    self._stopped.wait(0.5)
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self._errors.append(error)

    def _train(self, work: Work) -> None:
        """One process, from its beginning to its end."""
        trial, lease, session = work.step.trial, work.lease, self._session
        epochs, tail = session.ending.last_epoch, deque[str](maxlen=TAIL_LINES)
        arguments = self._command.filled(work, epochs)
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # So that it ends with all that it has started.
                start_new_session=True,
            )
        except OSError as error:
            self._let_go(trial, lease)
            raise InvalidInput(
                f"{arguments[0]}: it cannot be started ({error.strerror}). Check the command."
            ) from error
        self._held[trial] = (lease, process)
        epoch, verdict, began = 0, "continue", time.perf_counter()
        try:
            assert process.stdout is not None
            with process.stdout:
                # A line is bounded: a command may print megabytes without one.
                while line := process.stdout.readline(1 << 20):
                    tail.append(line)
                    if verdict != "continue" or (found := self._command.value_in(line)) is None:
                        continue
                    epoch += 1
                    value, told = found
                    seconds = max(0.0, time.perf_counter() - began) if told is None else told
                    began = time.perf_counter()
                    figures = _figures(epoch, value, seconds, work.step.batch_size, session)
                    verdict = session.telling.tell(trial, lease, lambda size, told=figures: told).result()  # type: ignore[misc]
                    if verdict == "stop" and epoch < epochs:
                        _end(process)
            code = process.wait()
            if verdict == "continue":
                self._ended_early(trial, lease, code, "".join(tail), epoch)
        finally:
            _end(process)
            self._held.pop(trial, None)

    def _ended_early(self, trial: int, lease: str, code: int, output: str, epoch: int) -> None:
        """A process ended before its trial did."""
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
            f"the command ended after {epoch} of {self._session.ending.last_epoch} epochs with "
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
        train_loss=None if math.isfinite(value) else math.nan,
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
