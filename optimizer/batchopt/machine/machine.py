"""What this machine is: device, processor, memory, versions."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from batchopt.machine import cgroup

DeviceKind = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Machine:
    """The hardware and software that a trial's seconds belong to.

    Attributes:
        device: the device's name, of the GPU or of the processor.
        kind: `gpu` or `cpu`.
        processor: the processor's model.
        cores: processor cores this process may use, by its affinity and its control group.
        memory_bytes: host memory that this process may use, by its control group.
        versions: of Python and the packages that decide speed.
        gpus: how many GPUs `--device` leaves to choose from.
        device_memory_bytes, device_free_bytes: the device's memory, and what of it was not in use at the start; those
            of the host for a processor; 0 where the driver does not say.
        driver, cuda: versions of the GPU's driver and of CUDA; empty without one.
        energy: what counts the device's energy, `NVML` or `RAPL`; empty where nothing does.
        no_energy: why nothing does, in a phrase; empty where it does, or nobody looked.
        max_power_w: the most that the device may draw, in watts; None where it does not say.
    """

    device: str
    kind: DeviceKind
    processor: str
    cores: int
    memory_bytes: int
    versions: dict[str, str]
    gpus: int = 0
    device_memory_bytes: int = 0
    device_free_bytes: int = 0
    driver: str = ""
    cuda: str = ""
    energy: str = ""
    no_energy: str = ""
    max_power_w: float | None = None

    @property
    def fingerprint(self) -> str:
        """Short and stable: equal for equal hardware, whatever its software."""
        parts = [self.device, self.kind, self.processor, self.cores]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"fingerprint": self.fingerprint, **asdict(self)}


def host_memory() -> tuple[int, int]:
    """Bytes of memory that this process may use in all, and those that are not in use."""
    memory = psutil.virtual_memory()
    limit = cgroup.memory_limit()
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    return limit, max(0, min(memory.available, limit - (cgroup.memory_used() or 0)))


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def available_cores() -> int:
    """Cores this process may use, by its affinity and its control group's quota."""
    quota = cgroup.cpu_quota()
    cores = len(usable_cores())
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def usable_cores() -> list[int]:
    """The cores of this process's affinity, by number, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_shares(workers: int) -> list[tuple[int, ...]]:
    """Each worker's own cores, as even as they can be; workers beyond the number of cores share them."""
    cores = usable_cores()
    return [tuple(cores[worker::workers]) or (cores[worker % len(cores)],) for worker in range(workers)]
