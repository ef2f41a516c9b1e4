"""The files of a model that is kept: the model, what it was trained with, and a checkpoint until it is there.

All of them are written under another name first, so that none is ever there by half.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchopt.errors import InvalidInput
from batchopt.text import printable
from batchopt.training.checkpoint import pack, unpack

SUFFIX = ".keras"
"""Keras writes its own format to such names alone."""


@dataclass(frozen=True)
class Kept:
    """A checkpoint of a training.

    Attributes:
        epoch: after which it was made.
        seconds: on the training clock until then.
        state: as a worker packed it.
    """

    epoch: int
    seconds: float
    state: bytes


@dataclass(frozen=True)
class ModelFile:
    """Where a model goes.

    Attributes:
        path: of the model; ends in .keras.
        force: whether files that are there already are replaced.
    """

    path: Path
    force: bool = False

    @property
    def description(self) -> Path:
        """Of what the model was trained with."""
        return self.path.with_suffix(".json")

    @property
    def part(self) -> Path:
        """Of the checkpoint."""
        return self.path.with_name(f"{self.path.name}.part")

    def check(self) -> None:
        """Refuse what cannot be written, before anything is trained.

        Raises:
            InvalidInput: naming what is wrong and what to do.
        """
        name, folder = printable(self.path), printable(self.path.parent)
        if self.path.suffix != SUFFIX:
            raise InvalidInput(f"model file {name}: Keras writes files whose names end in {SUFFIX}. Name one so.")
        if not self.path.parent.is_dir():
            raise InvalidInput(f"model file {name}: the folder {folder} does not exist. Make it first.")
        if not os.access(self.path.parent, os.W_OK):
            raise InvalidInput(f"model file {name}: no permission to write in folder {folder}. Choose another folder.")
        for path in (self.path, self.description, self.part):
            if os.path.lexists(path) and not path.is_file():
                raise InvalidInput(f"model file {printable(path)}: that is no file. Choose another name.")
        self.check_free()
        self._read()

    def check_free(self) -> None:
        """Refuse to replace a file that was not to be replaced.

        Raises:
            InvalidInput: naming it.
        """
        for path in (self.path, self.description):
            if os.path.lexists(path) and not self.force:
                raise InvalidInput(
                    f"{printable(path)} exists already. Choose another name, or replace it with --force."
                )

    def kept(self, belongs: Mapping[str, Any]) -> Kept | None:
        """The checkpoint of a training, if there is one.

        Args:
            belongs: what it was trained with, as JSON values; a checkpoint of anything else is not used.

        Returns:
            None where there is none, or one of something else, which `keep` replaces.

        Raises:
            InvalidInput: in its place is a file that is none, or a damaged one.
        """
        read = self._read()
        return read[1] if read is not None and read[0] == json.loads(json.dumps(belongs)) else None

    def _read(self) -> tuple[Any, Kept] | None:
        """What the checkpoint belongs to, and itself; errors as `kept`."""
        if not self.part.exists():
            return None
        try:
            about, state = unpack(self.part.read_bytes())
            said = json.loads(about.tobytes())
            return said["belongs"], Kept(int(said["epoch"]), float(said["seconds"]), state.tobytes())
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            if self.force:
                return None
            raise InvalidInput(
                f"{printable(self.part)} is not a checkpoint of this command, or is damaged. Remove it, or begin anew "
                "with --force."
            ) from None

    def keep(self, belongs: Mapping[str, Any], kept: Kept) -> None:
        """Write a checkpoint in the place of the last one.

        Raises:
            OSError: it cannot be written; the last one is still there.
        """
        said = {"belongs": belongs, "epoch": kept.epoch, "seconds": kept.seconds}
        content = pack([np.frombuffer(json.dumps(said).encode(), np.uint8), np.frombuffer(kept.state, np.uint8)])
        _replaced(self.part, content)

    def temporary(self) -> Path:
        """Another name beside the model's, for a worker to write to, whose working folder may be another one."""
        return self.path.absolute().with_name(f".{self.path.stem}.{uuid.uuid4().hex}{SUFFIX}")

    def publish(self, model: Path, description: Mapping[str, Any]) -> None:
        """Put a model that is written in its place, and what it was trained with beside it; the checkpoint goes.

        Args:
            model: the model, under its `temporary` name.
            description: as JSON values, all numbers finite.

        Raises:
            InvalidInput: a file has come in its place meanwhile, or it cannot be written; the checkpoint stays.
        """
        try:
            self.check_free()
            os.replace(model, self.path)
            _replaced(self.description, (json.dumps(description, indent=2, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise InvalidInput(f"model file {printable(self.path)}: {error.strerror}.") from error
        self.part.unlink(missing_ok=True)


def sealed(model: Path) -> str:
    """The SHA-256 of a file, which is on the disk from then on.

    Raises:
        InvalidInput: it cannot be written.
    """
    try:
        with model.open("rb") as file:
            os.fsync(file.fileno())
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"model file {printable(model)}: {error.strerror}.") from error


def _replaced(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it finds the old one or the new one.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        with contextlib.suppress(OSError):
            new.unlink()
