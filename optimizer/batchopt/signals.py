"""Ctrl-C, SIGTERM and SIGHUP as something to look at between two steps, so that no write is ever cut in two."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupted(Exception):
    """The study was asked to end; it can be resumed.

    Attributes:
        signal_number: which signal asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """The shell's convention: 128 + signal."""
        return 128 + self.signal_number


class Interruption:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered; a second one is not waited for."""

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, object] = {}

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self._noted is not None:
            raise Interrupted(self._noted)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    # Started by nohup, to outlive its terminal.
                    continue
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None is a handler in C, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted is not None:
            raise Interrupted(number)
        self._noted = number
