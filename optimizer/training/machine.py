"""What this machine is: device, processor, memory, versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from optimizer.errors import DeviceError, InvalidInput

DeviceKind = Literal["cpu", "gpu"]
VERSIONS = ("tensorflow", "keras", "optuna", "numpy")


@dataclass(frozen=True)
class Machine:
    """The hardware and software that a trial's seconds belong to.

    Attributes:
        device: the device's name, of the GPU or of the processor.
        kind: `gpu` or `cpu`.
        processor: the processor's model.
        cores: processor cores this process may use.
        memory_bytes: host memory.
        versions: of Python and the packages that decide speed.
    """

    device: str
    kind: DeviceKind
    processor: str
    cores: int
    memory_bytes: int
    versions: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Short and stable: equal for equal hardware, whatever its software."""
        parts = [self.device, self.kind, self.processor, self.cores]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"fingerprint": self.fingerprint, **asdict(self)}


def gpu_indices(device: str) -> tuple[int, ...] | None:
    """The GPUs that `--device` names: none for `cpu`, None for all there are (`auto`, `gpu`).

    Raises:
        InvalidInput: not `auto`, `cpu`, `gpu` or `gpu:0,1`.
    """
    if device in ("auto", "gpu"):
        return None
    if device == "cpu":
        return ()
    kind, _, numbers = device.partition(":")
    if kind == "gpu" and numbers and all(number.strip().isdigit() for number in numbers.split(",")):
        return tuple(int(number) for number in numbers.split(","))
    raise InvalidInput(f"--device {device}: write auto, cpu, gpu, or gpu:0,1.")


def use_device(device: str, threads: int | None) -> Machine:
    """Configure TensorFlow for a device, before its first use, and say what the machine is.

    Args:
        device: as `--device`; `gpu:N` uses that one GPU of those the process can see.
        threads: processor threads for this process; all of its cores where None.

    Raises:
        DeviceError: a GPU was asked for and TensorFlow cannot use one.
    """
    import tensorflow as tf

    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    wanted = gpu_indices(device)
    gpus: Sequence[Any] = tf.config.list_physical_devices("GPU")
    if device.startswith("gpu") and not gpus:
        raise DeviceError(
            f"--device {device}: TensorFlow sees no GPU on this machine. "
            "Install batchopt[gpu] and a driver, or use --device cpu."
        )
    if wanted:
        if max(wanted) >= len(gpus):
            raise DeviceError(f"--device {device}: this machine has GPUs 0 to {len(gpus) - 1}.")
        gpus = [gpus[index] for index in wanted]
    elif wanted == ():
        gpus = []
    gpus = gpus[:1]
    tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else processor()
    return Machine(
        device=name,
        kind="gpu" if gpus else "cpu",
        processor=processor(),
        cores=available_cores(),
        memory_bytes=psutil.virtual_memory().total,
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
    )


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def available_cores() -> int:
    """Cores this process may use, by its affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
