"""Functions and classes of a script on their way to a worker: by value, and their source with them.

cloudpickle writes what cannot be imported (functions of a script, of a notebook, of text that was executed) by value,
but gives its code the file name `<dynamic-code>`. AutoGraph, which turns a Python `if` over tensors into a graph, finds
no source there, nor does a traceback. So the code keeps its file's name, and the lines that Python knows of this file
travel along: as they were when the script ran, whatever becomes of the file, or of the notebook that never was one.
"""

from __future__ import annotations

import io
import linecache
import pickle
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import cloudpickle

from batchopt.machine.machine import Machine
from batchopt.training.device import use_device
from batchopt.training.messages import Setup
from batchopt.training.surroundings import Surroundings, custom_objects, register

Sources = dict[str, list[str]]
"""The lines of each file, by the name that code has of it."""


def packed(content: Any) -> tuple[bytes, Sources]:
    """`content`, pickled, and the source of all code in it."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.dump(content)
    lines = {name: linecache.getlines(name) for name in pickler.files}
    return buffer.getvalue(), {name: found for name, found in lines.items() if found}


def remember(sources: Mapping[str, list[str]]) -> None:
    """Have Python find these lines, for `inspect` and for tracebacks."""
    for name, lines in sources.items():
        # Without a time of change, which would have Python look whether there is a newer file.
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


@dataclass(frozen=True)
class Opening:
    """The first message to a worker.

    Attributes:
        surroundings: to be restored before anything of the user's is imported.
        device, cores, memory_limit: as in `Setup`; to be chosen before that too.
        sources: of the code in `content`.
        content: what was registered with Keras, and the `Setup`, packed.
    """

    surroundings: Surroundings
    sources: Sources
    content: bytes
    device: str
    cores: tuple[int, ...] | None
    memory_limit: int | None


def opening(setup: Setup) -> bytes:
    """A worker's first message, as bytes."""
    content, sources = packed((custom_objects(), setup))
    return pickle.dumps(Opening(setup.surroundings, sources, content, setup.device, setup.cores, setup.memory_limit))


def opened(message: Opening) -> tuple[Setup, Machine, list[str]]:
    """What a worker is told, in the surroundings of the script; its machine; what could not be carried, a line each.

    Raises:
        DeviceError: as `use_device`.
    """
    message.surroundings.restore()
    # A module of the user's may make a variable when it is imported, and TensorFlow takes its devices as they are then.
    machine = use_device(message.device, message.cores, memory_limit=message.memory_limit)
    remember(message.sources)
    objects, setup = pickle.loads(message.content)
    register(objects)
    return setup, machine, message.surroundings.missing()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, where code keeps the name of its file."""

    def __init__(self, file: io.BytesIO) -> None:
        theirs: Mapping[Any, Any] = cloudpickle.Pickler.dispatch_table
        self.files: set[str] = set()
        self._reduce_code = theirs[CodeType]
        # Before the rest, which looks at it once.
        self.dispatch_table = ChainMap({CodeType: self._code}, dict(theirs))
        super().__init__(file)

    def _code(self, code: CodeType) -> tuple[Any, ...]:
        self.files.add(code.co_filename)
        make, arguments = self._reduce_code(code)
        return _restored, (make, arguments, code.co_filename)


def _restored(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str) -> CodeType:
    return make(*arguments).replace(co_filename=filename)
