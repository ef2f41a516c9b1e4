"""A worker's limit on itself, so that what goes beyond it fails in this process and nowhere else."""

from __future__ import annotations

import resource

import psutil

SLACK_BYTES = 1 << 30
"""For TensorFlow's own threads, compilers and address space that is never touched."""


def limit_process(more_bytes: int) -> None:
    """Let this process have so many bytes of data more than it has now, and a slack; then allocation fails.

    TensorFlow's own allocator fails earlier, at the limit itself; this one is for memory that it does not know of, such
    as NumPy's in the user's code.
    """
    data = psutil.Process().memory_info().data
    soft = data + more_bytes + SLACK_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
