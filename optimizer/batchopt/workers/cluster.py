"""A Ray cluster to train on: joined for as long as a study runs, and what each worker gets of it."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield share_of([(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive], options)
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
        if address == "auto":
            host, _, port = _left_by_ray().rpartition(":")
        if host and port.isdigit():
            # Where nobody answers Ray would end this process, or wait for many minutes.
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise DeviceError(
            f"--ray {address}: no Ray cluster answers there ({first_line(error)}). "
            "Start one with `ray start --head`, or use --ray local."
        ) from None


def _left_by_ray() -> str:
    """Where the cluster is that `auto` stands for, as Ray documents it; empty where nothing says it.

    The file is that of the last cluster which was started here; one that was killed leaves it.
    """
    if named := os.environ.get("RAY_ADDRESS"):
        return named
    try:
        return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


def share_of(nodes: Sequence[tuple[int, int]], options: Options) -> ClusterShare:
    """One worker on each GPU; where there is none, or none is wanted, one on each node.

    Args:
        nodes: CPUs and GPUs of each.
        options: what the user asks for.

    Raises:
        InvalidInput: no node has what a worker needs.
    """
    on_gpu = options.device != "cpu" and any(gpus for _, gpus in nodes)
    if on_gpu:
        # What every GPU has beside it on its own node: a node that is rich in CPUs alone says nothing of that.
        cpus = min(cpus // gpus for cpus, gpus in nodes if gpus)
    else:
        cpus = max(cpus for cpus, _ in nodes) // ((options.workers or 1) if options.ray == LOCAL else 1)
    each_cpus = options.ray_cpus if options.ray_cpus is not None else max(1, cpus)
    each_gpus = options.ray_gpus if options.ray_gpus is not None else float(on_gpu)
    # A head of its own often has no CPUs to give.
    room = [int(min(cpus / each_cpus, gpus / each_gpus if each_gpus else math.inf)) for cpus, gpus in nodes]
    if not any(room):
        raise InvalidInput(
            f"--ray {options.ray}: no node has {each_cpus:g} CPUs and {each_gpus:g} GPUs for a worker; the largest has "
            f"{max(cpus for cpus, _ in nodes)} CPUs and {max(gpus for _, gpus in nodes)} GPUs. Use --ray-cpus and "
            "--ray-gpus, or another --device."
        )
    workers = options.workers or (sum(room) if on_gpu else sum(fits > 0 for fits in room))
    return ClusterShare(each_cpus, each_gpus, workers, local=options.ray == LOCAL)
