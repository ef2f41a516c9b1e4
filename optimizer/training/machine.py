"""What this machine is: device, processor, memory, versions."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

from optimizer.errors import DeviceError, InvalidInput
from optimizer.training import cgroup
from optimizer.training.gpu import Card, Meter, driver_version, why_no_gpu

DeviceKind = Literal["cpu", "gpu"]
VERSIONS = ("tensorflow", "keras", "optuna", "numpy")


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


def use_device(device: str, cores: Sequence[int] | None = None, *, memory_limit: int | None = None) -> Machine:
    """Configure TensorFlow for a device, before its first use, and say what the machine is.

    Args:
        device: as `--device`; `gpu:N` uses that one GPU of those the process can see.
        cores: processor cores for this process, by number; all that it may use where None.
        memory_limit: bytes of device memory that TensorFlow may use, so that a large device plays a smaller one.

    Raises:
        DeviceError: a GPU was asked for and TensorFlow cannot use one.
    """
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    # Read when TensorFlow first allocates: its own allocator then fails as that of a GPU does. It also counts, which
    # the one that TensorFlow takes on processors without AVX512-VNNI does not.
    os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "1"
    os.environ["TF_CPU_BFC_MEM_LIMIT_IN_MB"] = str(max(1, (memory_limit or host_memory()[0]) >> 20))
    import tensorflow as tf

    if cores is not None or available_cores() < (os.cpu_count() or 1):
        # TensorFlow does not know of quotas.
        tf.config.threading.set_intra_op_parallelism_threads(available_cores())
    wanted = gpu_indices(device)
    gpus: Sequence[Any] = tf.config.list_physical_devices("GPU")
    if device.startswith("gpu") and not gpus:
        raise DeviceError(
            f"--device {device}: TensorFlow sees no GPU on this machine: {why_no_gpu()}. Or use --device cpu."
        )
    if wanted:
        if max(wanted) >= len(gpus):
            raise DeviceError(f"--device {device}: this machine has GPUs 0 to {len(gpus) - 1}.")
        gpus = [gpus[index] for index in wanted]
    elif wanted == ():
        gpus = []
    count, gpus = len(gpus), gpus[:1]
    tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        # The two exclude each other.
        if memory_limit is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=max(1, memory_limit >> 20))
            tf.config.set_logical_device_configuration(gpu, [limit])
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else processor()
    card = Meter(wanted[0] if wanted else 0).card() if gpus else None
    return _describe(name, card, gpus=count, versions=_versions(tf) if gpus else {})


def _describe(name: str, card: Card | None, *, gpus: int, versions: dict[str, str]) -> Machine:
    total, free = host_memory()
    on_host = {"device_memory_bytes": total, "device_free_bytes": free}
    on_card = {} if card is None else {"device_memory_bytes": card.memory_bytes, "device_free_bytes": card.free_bytes}
    return Machine(
        device=name,
        kind="gpu" if gpus else "cpu",
        processor=processor(),
        cores=available_cores(),
        memory_bytes=total,
        versions={"python": platform.python_version()}
        | {package: metadata.version(package) for package in VERSIONS}
        | versions,
        gpus=gpus,
        driver=(driver_version() if card is None else card.driver) if gpus else "",
        cuda="" if card is None else card.cuda,
        **(on_card if gpus else on_host),
    )


def _versions(tf: Any) -> dict[str, str]:
    """Versions of the CUDA libraries that TensorFlow was built against."""
    built = tf.sysconfig.get_build_info()
    return {name: str(built[f"{name}_version"]) for name in ("cuda", "cudnn") if f"{name}_version" in built}


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
