"""What the kernel's control groups leave to this process: cores, memory, how often it ran out. Versions 1 and 2."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
VMSTAT = Path("/proc/vmstat")

UNLIMITED = 1 << 60
"""Version 1 writes a huge number where there is no limit."""


def cpu_quota() -> float | None:
    """Cores' worth of time that may be used; None for no quota."""
    for folder in _folders("cpu"):
        words = (_read(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0].isdigit():
            return int(words[0]) / int(words[1])
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota is not None and period and quota > 0:
            return quota / period
    return None


def memory_limit() -> int | None:
    """Bytes that may be used, the least of this group's and its parents' limits; None for no limit."""
    limits = [
        limit
        for folder in _folders("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _number(folder / name)) is not None and limit < UNLIMITED
    ]
    return min(limits, default=None)


def memory_used() -> int | None:
    """Bytes that count against the limit; None where there is no such group."""
    for folder in _folders("memory"):
        for name in ("memory.current", "memory.usage_in_bytes"):
            used = _number(folder / name)
            if used is not None:
                return used
    return None


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started, as far as can be seen here."""
    counts = [0]
    for line in (_read(VMSTAT) or "").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdigit():
            counts.append(int(count))
    for folder in _folders("memory"):
        for name in ("memory.events", "memory.oom_control"):
            words = (_read(folder / name) or "").split()
            if "oom_kill" in words:
                counts.append(int(words[words.index("oom_kill") + 1]))
    return max(counts)


def _folders(controller: str) -> list[Path]:
    """This process's group and its parents, the nearest first, where they are mounted."""
    folders = []
    for line in (_read(MEMBERSHIP) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = ROOT / controller if controllers else ROOT
        here = top / path.strip("/")
        folders += [folder for folder in (here, *here.parents) if folder.is_relative_to(top) and folder.is_dir()]
    return folders


def _number(file: Path) -> int | None:
    text = (_read(file) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
