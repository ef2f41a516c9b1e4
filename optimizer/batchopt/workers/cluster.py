"""A Ray cluster to train on: joined for as long as a study runs, and what each worker gets of it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchopt.errors import DeviceError, InvalidInput
from batchopt.machine.machine import available_cores
from batchopt.question.options import Options
from batchopt.text import first_line
from batchopt.training.messages import ClusterShare

LOCAL = "local"
ANSWER_SECONDS = 10


@contextmanager
def joined(options: Options) -> Iterator[ClusterShare | None]:
    """Join the cluster that `--ray` names, or start one on this machine for `local`; None where there is no `--ray`.

    Raises:
        InvalidInput: Ray is not installed, or no node has what each worker is to get.
        DeviceError: there is no such cluster.
    """
    if options.ray is None:
        yield None
        return
    try:
        import ray
    except ModuleNotFoundError:
        raise InvalidInput("--ray: Ray is not installed here. pip install 'batchopt[ray]', on all nodes.") from None
    mine = not ray.is_initialized()
    try:
        if mine:
            _join(ray, options.ray)
        yield _share(ray, options)
    finally:
        if mine:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        ray.init(address=LOCAL, num_cpus=available_cores(), include_dashboard=False, **quiet)
        return
    host, _, port = address.rpartition(":")
    if "://" in address or (address != "auto" and not (host and port.isdigit())):
        raise InvalidInput(f"--ray {address}: write auto, local, or the cluster's address as 10.0.0.1:6379.")
    try:
        if address != "auto":
            # Ray would end this process where nobody answers.
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise DeviceError(
            f"--ray {address}: no Ray cluster answers there ({first_line(error)}). "
            "Start one with `ray start --head`, or use --ray local."
        ) from None


def _share(ray: Any, options: Options) -> ClusterShare:
    """One worker on each GPU; where there is none, or none is wanted, one on each node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(node.get(name, 0)) for node in nodes] for name in ("CPU", "GPU"))
    on_gpu = options.device != "cpu" and sum(gpus) > 0
    most = max(gpus) if on_gpu else (options.workers or 1) if options.ray == LOCAL else 1
    each_cpus = options.ray_cpus if options.ray_cpus is not None else max(1, max(cpus) // most)
    each_gpus = options.ray_gpus if options.ray_gpus is not None else float(on_gpu)
    # A head of its own often has no CPUs to give.
    fitting = sum(each_cpus <= cpu and each_gpus <= gpu for cpu, gpu in zip(cpus, gpus, strict=True))
    if not fitting:
        raise InvalidInput(
            f"--ray {options.ray}: no node has {each_cpus:g} CPUs and {each_gpus:g} GPUs for a worker; the largest "
            f"has {max(cpus)} CPUs and {max(gpus)} GPUs. Use --ray-cpus and --ray-gpus, or another --device."
        )
    workers = options.workers or (sum(gpus) if on_gpu else fitting)
    return ClusterShare(each_cpus, each_gpus, workers, local=options.ray == LOCAL)
