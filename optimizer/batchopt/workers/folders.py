"""The folder of each worker for what TensorFlow leaves behind; those of workers that were killed go with the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "batchopt-worker-"
LOCK = "lock"


class WorkerFolder:
    """A folder of a worker, which it and its study keep locked for as long as one of them lives.

    The kernel lets go of a lock with the last process that has it, however that ends, so that a folder whose lock is
    free belongs to nobody any more.

    Attributes:
        path: the folder.
        lock: the descriptor of the lock, for the worker to inherit.
    """

    def __init__(self) -> None:
        remove_left_behind()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.lock = os.open(self.path / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def remove_left_behind() -> None:
    """Remove the folders of this user's workers that were killed together with their study."""
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                _remove_if_free(folder)


def _remove_if_free(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return
    # One without a lock is being made in this moment, or is not of this version.
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
