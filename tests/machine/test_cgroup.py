"""Control groups as the kernel writes them, of both versions, laid out in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from batchopt.machine import cgroup

Write = Callable[[dict[str, str]], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cgroup, "VMSTAT", tmp_path / "vmstat")

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def test_version_2_is_read_with_the_least_limit_of_all_parents(write: Write) -> None:
    write(
        {
            "membership": "0::/pod/box\n",
            "pod/box/cpu.max": "150000 100000\n",
            "pod/box/memory.max": "max\n",
            "pod/memory.max": "2147483648\n",
            "pod/box/memory.current": "1048576\n",
            "pod/box/memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n",
        }
    )
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.memory_limit() == 2 << 30
    assert cgroup.memory_used() == 1 << 20
    assert cgroup.out_of_memory_kills() == 2


def test_version_1_has_a_folder_for_each_controller(write: Write) -> None:
    write(
        {
            "membership": "5:cpu,cpuacct:/box\n4:memory:/box\n",
            "cpu/box/cpu.cfs_quota_us": "400000\n",
            "cpu/box/cpu.cfs_period_us": "100000\n",
            "memory/box/memory.limit_in_bytes": "1073741824\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/box/memory.usage_in_bytes": "4096\n",
            "vmstat": "nr_free_pages 1\noom_kill 7\n",
        }
    )
    # Its folder may be called by one controller or by all that share it; one name is always a link to the other.
    assert cgroup.cpu_quota() == 4.0
    assert cgroup.memory_limit() == 1 << 30
    assert cgroup.memory_used() == 4096
    assert cgroup.out_of_memory_kills() == 7


def test_no_quota_and_no_group_are_no_limit(write: Write) -> None:
    assert (cgroup.cpu_quota(), cgroup.memory_limit(), cgroup.memory_used()) == (None, None, None)
    write({"membership": "0::/\n", "cpu.max": "max 100000\n"})
    assert (cgroup.cpu_quota(), cgroup.out_of_memory_kills()) == (None, 0)
