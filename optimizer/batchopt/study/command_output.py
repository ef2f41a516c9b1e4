"""The lines that a process writes as it goes on: to its output, or to a file of its own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TAIL_LINES = 40
"""Of a command's output that are looked at, and shown, where it fails."""

LONGEST_LINE = 1 << 20
"""Letters; a command may print megabytes without an end of a line."""

LOOK_SECONDS = 0.1
"""How often a file is looked at."""


class Output:
    """What a process says.

    Args:
        process: with its output as a pipe.
        results: the file whose lines count in the place of its output; None for the output.
        began_at: bytes of that file that were there before.
    """

    def __init__(self, process: subprocess.Popen[str], results: str | None, began_at: int = 0) -> None:
        assert process.stdout is not None
        self._process, self._pipe = process, process.stdout
        self._results, self._at = results, began_at
        self._tail = deque[str](maxlen=TAIL_LINES)

    @property
    def tail(self) -> str:
        """The last lines of its output."""
        return "".join(self._tail)

    def lines(self) -> Iterator[str]:
        """Each line that counts, until the process has ended."""
        with self._pipe:
            if self._results is None:
                yield from self._said(self._pipe)
                return
            # Read all the same, as a full pipe would stop it.
            draining = threading.Thread(target=lambda: deque(self._said(self._pipe), maxlen=0), daemon=True)
            draining.start()
            yield from self._written(Path(self._results), draining)

    def _said(self, pipe: IO[str]) -> Iterator[str]:
        while line := pipe.readline(LONGEST_LINE):
            self._tail.append(line)
            yield line

    def _written(self, path: Path, draining: threading.Thread) -> Iterator[str]:
        started = ""
        while True:
            # Looked at before the file, so that its last lines are read.
            over = self._process.poll() is not None
            new = self._new_in(path)
            *whole, started = (started + new).split("\n")
            yield from whole
            if over:
                if started:
                    yield started
                draining.join()
                return
            if not new:
                time.sleep(LOOK_SECONDS)

    def _new_in(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                if path.stat().st_size < self._at:
                    # Written anew.
                    self._at = 0
                file.seek(self._at)
                content = file.read(LONGEST_LINE)
        except FileNotFoundError:
            return ""
        self._at += len(content)
        return content.decode(errors="replace")


def size_of(path: str | None) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return 0 if path is None else Path(path).stat().st_size
    except FileNotFoundError:
        return 0
