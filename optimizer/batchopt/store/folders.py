"""Where files of checkpoints may lie. What a database says of one is its name in there, and never a path.

A database may be anybody's, so no row of it may have another file opened, sent, or removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.engine import URL

from batchopt.errors import BatchoptError, InvalidInput
from batchopt.store.records import DamagedCheckpoint
from batchopt.text import first_line, printable, shown_url, without_secrets

NAME = re.compile(r"[0-9a-f]{32}\.npz")
"""What a file of ours is called."""

CHUNK = 1 << 20

PASSING = (errno.EIO, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH)
"""Of a network file system that is away."""


class Elsewhere(DamagedCheckpoint):
    """A file of ours in a folder that was not given; it may be whole."""


class Away(Elsewhere):
    """A file of ours in a folder that cannot be reached now; it may be whole."""


class FolderAway(OSError):
    """A folder cannot be reached now, or fails; it may pass."""


class Folder:
    """A folder of this machine.

    Args:
        path: of the folder.
        follow: whether it may be a link; one beside a database, which came with it, may not.
    """

    def __init__(self, path: str, *, follow: bool) -> None:
        self.path = path
        self._follow = follow

    def read(self, name: str, sha256: str) -> bytes:
        """A file's bytes, once they are known to be those that were written.

        Raises:
            OSError: it cannot be read.
            DamagedCheckpoint: it is no file, or another one.
        """
        with self._opened() as folder, open(name, "rb", opener=_careful(folder)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DamagedCheckpoint(f"{printable(name)} is not a file")
            check_size(found.st_size)
            # Looked at before it is held: another file may be of any size.
            digest = hashlib.sha256()
            while chunk := file.read(CHUNK):
                digest.update(chunk)
            check_digest(digest.hexdigest(), sha256)
            file.seek(0)
            return file.read(found.st_size)

    def write(self, name: str, content: bytes) -> None:
        """Make a file; the folder too."""
        os.makedirs(self.path, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._opened() as folder, open(os.open(name, flags, 0o666, dir_fd=folder), "wb") as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Remove a file; of a link, the link."""
        with self._opened() as folder:
            os.unlink(name, dir_fd=folder)

    def files(self) -> list[Path]:
        """Those that are ours by their names."""
        try:
            with self._opened() as folder:
                names = sorted(filter(NAME.fullmatch, os.listdir(folder)))
        except OSError:
            return []
        return [Path(self.path, name) for name in names]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if self._follow else os.O_NOFOLLOW)
        handle = os.open(self.path, flags)
        try:
            yield handle
        finally:
            os.close(handle)


def _careful(folder: int) -> Callable[[str, int], int]:
    """Opens a file in a folder; neither a link nor a pipe is followed or waited for."""
    return lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)


class Remote:
    """A folder that fsspec reaches; methods as those of `Folder`."""

    def __init__(self, files: Any, path: str, url: str) -> None:
        self._files = files
        self._path = path
        self._url = url

    def read(self, name: str, sha256: str) -> bytes:
        place = f"{self._path}/{name}"
        with _as_os_error(self._url):
            check_size(int(self._files.info(place).get("size") or 0))
            content: bytes = self._files.cat_file(place)
        check_digest(hashlib.sha256(content).hexdigest(), sha256)
        return content

    def write(self, name: str, content: bytes) -> None:
        with _as_os_error(self._url):
            self._files.makedirs(self._path, exist_ok=True)
            self._files.pipe_file(f"{self._path}/{name}", content)

    def remove(self, name: str) -> None:
        with _as_os_error(self._url):
            self._files.rm_file(f"{self._path}/{name}")


class Folders:
    """The folder beside a database, and the one that the user has given.

    Args:
        url: of the database; a server has no folder beside it.
        given: as `--checkpoints`: a path or an fsspec URL; files are then written there.

    Attributes:
        own: the folder beside the database; None for a server.

    Raises:
        InvalidInput: a URL for which there is no file system.
    """

    def __init__(self, url: URL, given: str | None = None) -> None:
        path = beside(url)
        self.own = None if path is None else Folder(path, follow=False)
        self._given: Folder | Remote | None = None
        self._shown = ""
        if given is not None:
            files, place = file_system(given)
            local = "file" in (files.protocol if isinstance(files.protocol, tuple) else (files.protocol,))
            self._given = Folder(place, follow=True) if local else Remote(files, place, given)
            # A relative path would be another one from another folder.
            self._shown = place if local else shown_url(given.rstrip("/"))

    @property
    def for_writing(self) -> Folder | Remote | None:
        """Where a new file goes; None where there is no place for one."""
        return self._given or self.own

    def new_location(self) -> str:
        """What a row says of a file to be made: its name, behind the folder that the user will have to give again."""
        name = f"{uuid.uuid4().hex}.npz"
        return f"{self._shown}/{name}" if self._shown else name

    def read(self, location: str, sha256: str) -> bytes:
        """The bytes of a checkpoint's file.

        Raises:
            Away: its folder cannot be reached now.
            DamagedCheckpoint: they are not those that were written; it is not there, or no file of ours.
        """
        name = name_of(location)
        if name is None:
            raise DamagedCheckpoint(f"{printable(location)} is no name of a checkpoint's file, and was not opened")
        why, away = "there is no folder beside a server's database", False
        for folder in self._all:
            try:
                return folder.read(name, sha256)
            except OSError as error:
                why = why if away else error.strerror or first_line(error)
                away = away or passes(error)
        if away:
            raise Away(why)
        if location != name and location.rpartition("/")[0] != self._shown:
            raise Elsewhere(f"it lies in {printable(location.rpartition('/')[0])}; give that folder with --checkpoints")
        raise DamagedCheckpoint(f"{printable(location)} cannot be read: {why}")

    def remove(self, location: str) -> None:
        """Remove a file; one that is gone, out of reach now, or none of ours, harms nobody."""
        name = name_of(location)
        for folder in self._all if name else ():
            with contextlib.suppress(OSError):
                folder.remove(name or "")

    @property
    def _all(self) -> list[Folder | Remote]:
        return [folder for folder in (self._given, self.own) if folder is not None]


def beside(url: URL) -> str | None:
    """The folder for files beside an SQLite database, wherever it is looked at from; None for a server."""
    return f"{os.path.realpath(str(url.database))}-checkpoints" if url.get_backend_name() == "sqlite" else None


def name_of(location: object) -> str | None:
    """The name in what a row says of a file; rows of earlier versions name its folder too. None for anything else."""
    name = str(location).rpartition("/")[2]
    return name if NAME.fullmatch(name) else None


def check_digest(found: str, written: str) -> None:
    """Refuse bytes of another SHA-256 than the one that was written with them.

    Raises:
        DamagedCheckpoint: they are not those that were written.
    """
    if found != written:
        raise DamagedCheckpoint("its SHA-256 is not the one that was written with it")


def check_size(size: int) -> None:
    """Refuse what this machine cannot hold, which nobody has trained here.

    Raises:
        DamagedCheckpoint: it is larger than the memory that is free.
    """
    if size > psutil.virtual_memory().available:
        raise DamagedCheckpoint(f"its {size >> 20} MiB are more than this machine has memory for")


def file_system(location: str) -> tuple[Any, str]:
    """The file system of a path or a URL, and the path in it.

    Raises:
        InvalidInput: there is none for it, or its package is missing.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(location)  # type: ignore[no-any-return]
    except Exception as error:  # noqa: BLE001  file systems raise what they like, and some connect at once
        said = without_secrets(first_line(error), location)
        raise InvalidInput(
            f"--checkpoints {shown_url(location)}: {said}. Give a folder, or a URL that fsspec knows."
        ) from None


def passes(error: OSError) -> bool:
    """Whether what a folder says may pass."""
    return isinstance(error, FolderAway) or error.errno in PASSING


@contextlib.contextmanager
def _as_os_error(url: str) -> Iterator[None]:
    """What a file system raises, in the one class that all of them should use."""
    try:
        yield
    except DamagedCheckpoint:
        raise
    except Exception as error:  # noqa: BLE001  as above
        said = without_secrets(first_line(error), url)
        raise (FolderAway if _may_pass(error) else OSError)(said) from None


def _may_pass(error: Exception) -> bool:
    """Whether what a remote file system raises may pass: it is away, whatever its package calls that."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return error.errno in PASSING
    return not isinstance(error, BatchoptError | TypeError | ValueError | ImportError | NotImplementedError)
