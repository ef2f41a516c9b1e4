"""What each worker gets of a cluster: computed from its nodes, no Ray in it."""

from __future__ import annotations

import pytest
from batchopt import Options
from batchopt.errors import InvalidInput
from batchopt.workers.cluster import share_of

AUTO = "auto"


@pytest.mark.parametrize(
    ("nodes", "options", "cpus", "gpus", "workers"),
    [
        ([(64, 0), (8, 4)], {}, 2, 1.0, 4),
        ([(32, 0), (8, 4)], {}, 2, 1.0, 4),
        ([(16, 2), (64, 8)], {}, 8, 1.0, 10),
        ([(0, 0), (4, 0), (4, 0)], {}, 4, 0.0, 2),
        ([(16, 2), (16, 0)], {"device": "cpu"}, 16, 0.0, 2),
        ([(8, 0)], {"ray": "local", "workers": 2}, 4, 0.0, 2),
        ([(2, 4)], {}, 1, 1.0, 2),
        ([(8, 2)], {"ray_gpus": 0.5, "ray_cpus": 2}, 2, 0.5, 4),
        ([(64, 0), (8, 4)], {"workers": 3}, 2, 1.0, 3),
    ],
)
def test_a_worker_has_what_every_gpu_has_on_its_own_node(
    nodes: list[tuple[int, int]], options: dict[str, object], cpus: int, gpus: float, workers: int
) -> None:
    """A large node without GPUs does not decide what those with GPUs can give."""
    share = share_of(nodes, Options(**({"ray": AUTO} | options)))  # type: ignore[arg-type]
    assert (share.cpus, share.gpus, share.workers) == (cpus, gpus, workers)


def test_what_no_node_has_is_refused_with_what_the_largest_has() -> None:
    with pytest.raises(InvalidInput, match=r"--ray auto: no node has 9 CPUs.*8 CPUs and 4 GPUs.*--ray-cpus"):
        share_of([(8, 4)], Options(ray=AUTO, ray_cpus=9))
