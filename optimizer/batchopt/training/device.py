"""The device that a worker trains on: chosen, configured and described; before TensorFlow is first used."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from batchopt.errors import DeviceError
from batchopt.machine.energy import counter_of, energy_meter
from batchopt.machine.gpu import Meter, driver_version, why_no_gpu
from batchopt.machine.machine import Machine, available_cores, host_memory, processor
from batchopt.question.options import gpu_indices
from batchopt.training.importing import importing

VERSIONS = ("tensorflow", "keras", "optuna", "numpy")


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
    with importing():
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
    index = (wanted[0] if wanted else 0) if gpus else None
    return _describe(name, index, gpus=count, versions=_versions(tf) if gpus else {})


def _describe(name: str, index: int | None, *, gpus: int, versions: dict[str, str]) -> Machine:
    card = None if index is None else Meter(index).card()
    meter = energy_meter(index, watched=False)
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
        energy="" if meter.lacking() else counter_of(index),
        no_energy=meter.lacking(),
        max_power_w=meter.max_power_w(),
        **(on_card if gpus else on_host),
    )


def _versions(tf: Any) -> dict[str, str]:
    """Versions of the CUDA libraries that TensorFlow was built against."""
    built = tf.sysconfig.get_build_info()
    return {name: str(built[f"{name}_version"]) for name in ("cuda", "cudnn") if f"{name}_version" in built}
