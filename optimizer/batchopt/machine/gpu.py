"""NVIDIA GPUs beside TensorFlow: is one there, which library is missing, what it has and draws, whose it is now."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batchopt.errors import DeviceError

CUDA_LIBRARIES = (
    "libcudart.so.12",
    "libcublas.so.12",
    "libcublasLt.so.12",
    "libcufft.so.11",
    "libcusolver.so.11",
    "libcusparse.so.12",
    "libcudnn.so.9",
)
"""What TensorFlow 2.21 loads before it lists a GPU; without one of them it lists none, and says so in its log alone."""

LOCKS = Path("/tmp")
"""Where all studies of a system meet, whatever their TMPDIR is."""


@dataclass(frozen=True)
class Card:
    """A GPU as its driver describes it.

    Attributes:
        uuid: the driver's own name of this very card.
        memory_bytes, free_bytes: device memory, all of it and what is not in use.
        driver, cuda: the driver's version, and the newest CUDA that it can run.
    """

    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int
    driver: str
    cuda: str


class Meter:
    """Energy and memory of one card by NVML; says nothing where the package or the driver is not there.

    Args:
        index: of the GPU as this process sees them; None for no GPU.
    """

    def __init__(self, index: int | None) -> None:
        self._index = index
        self._nvml: Any = None
        self._handle: Any = None
        if index is None:
            return
        with contextlib.suppress(ImportError):
            import pynvml

            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                self._handle = _handle(pynvml, index)
                self._nvml = pynvml

    def card(self) -> Card | None:
        """The card; None where NVML cannot say."""
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
            cuda = self._nvml.nvmlSystemGetCudaDriverVersion_v2()
            return Card(
                uuid=_text(self._nvml.nvmlDeviceGetUUID(self._handle)),
                name=_text(self._nvml.nvmlDeviceGetName(self._handle)),
                memory_bytes=int(memory.total),
                free_bytes=int(memory.free),
                driver=_text(self._nvml.nvmlSystemGetDriverVersion()),
                cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
            )
        return None

    @property
    def name(self) -> str:
        """The card's own name, or its number where NVML cannot say: what studies of one system lock it by."""
        card = self.card()
        return f"GPU {visible_index(self._index or 0)}".replace("/", "-") if card is None else card.uuid

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None where the card does not count it (before Volta)."""
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        return None

    def max_power_w(self) -> float | None:
        """The highest power limit that can be set; None where NVML does not say."""
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            return float(self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)[1]) / 1000
        return None

    def lacking(self) -> str:
        """Why it tells no energy, in a phrase; empty where it does."""
        if self._nvml is None:
            return "NVML does not answer: pip install 'batchopt[gpu]'"
        return "" if self.joules() is not None else "this GPU does not count its energy (NVML)"


def has_card(devices: Path = Path("/dev")) -> bool:
    """Whether the driver shows a GPU, whatever TensorFlow can do with it."""
    return any(devices.glob("nvidia[0-9]*"))


def driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of the driver by its own file, for where NVML is not installed; empty where there is none."""
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", file.read_text())
    except OSError:
        return ""
    return found[0] if found else ""


def why_no_gpu(libraries: Sequence[str] = CUDA_LIBRARIES, devices: Path = Path("/dev")) -> str:
    """Why TensorFlow lists no GPU, in one phrase: there is none, or which library it lacks."""
    if not has_card(devices):
        return "there is no NVIDIA GPU on this machine, or no driver for it"
    missing = [name for name in libraries if not _loads(name)]
    if missing:
        return f"there is a GPU, but TensorFlow lacks {', '.join(missing)}: pip install 'batchopt[gpu]'"
    return "there is a GPU, and its libraries; the driver may be too old for this TensorFlow"


@contextlib.contextmanager
def hold(name: str, folder: Path = LOCKS) -> Iterator[None]:
    """Have a card to oneself, against other studies of this system; let go when the process ends, however it ends.

    Raises:
        DeviceError: another process has it.
    """
    file = folder / f"batchopt-{name}.lock"
    # Anybody may write in there: a link that somebody has put in its place is not followed, nor a pipe waited for.
    careful = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | careful, 0o666)
            ours = True
        except PermissionError:
            # Another user's; it can be locked all the same.
            handle = os.open(file, os.O_RDONLY | careful)
            ours = False
    except OSError as error:
        raise DeviceError(f"{file}, the lock of {name}, cannot be used: {error.strerror}. Remove it.") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise DeviceError(f"{file}, the lock of {name}, is no file of its own. Remove it.")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DeviceError(
                f"{name} is in use by another study (process {holder}), and timings made together are worth nothing. "
                "Wait for it, name another GPU with --device, or use --share."
            ) from None
        if ours:
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def visible_index(index: int) -> int | str:
    """NVML's number, or the UUID, of what this process sees as GPU `index`."""
    visible = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    if index >= len(visible):
        return index
    return int(visible[index]) if visible[index].isdigit() else visible[index]


def _handle(nvml: Any, index: int) -> Any:
    name = visible_index(index)
    return nvml.nvmlDeviceGetHandleByIndex(name) if isinstance(name, int) else nvml.nvmlDeviceGetHandleByUUID(name)


def _loads(library: str) -> bool:
    """Whether the loader finds it, or pip has brought it where TensorFlow looks."""
    packages = find_spec("nvidia")
    folders = [] if packages is None else packages.submodule_search_locations or []
    if any(list(Path(folder).glob(f"*/lib/{library}")) for folder in folders):
        return True
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
