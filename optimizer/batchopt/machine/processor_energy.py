"""What the processor draws, by RAPL's counters where the kernel shows them: whole packages, whoever works on them.

A counter wraps around, on a large processor every few minutes, and a reading tells of one wrap only. So a meter reads
often enough by itself, however long an epoch takes.

Source: Linux, Documentation/power/powercap/powercap.rst; the zones `intel-rapl:N`, which AMD's processors have too.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

PACKAGE_ZONE = re.compile(r"intel-rapl:\d+")
"""Not `intel-rapl:0:1`, a part of package 0, nor `intel-rapl-mmio:0`, the same package by another register."""

MOST_W = 1000.0
"""No package draws more; where one does not say what it may."""

MICRO = 1e-6


@dataclass(frozen=True)
class _Package:
    """A zone: its counter, where that begins again, and what the package may draw."""

    counter: Path
    range_j: float
    max_power_w: float | None


class ProcessorMeter:
    """Energy of all packages of this machine; says nothing where one of their counters cannot be read.

    Args:
        root: where the kernel shows its zones.
        watched: whether it reads by itself, as often as the counters need.
    """

    def __init__(self, root: Path = POWERCAP, *, watched: bool = True) -> None:
        self._packages = [
            _Package(zone / "energy_uj", (_micro(zone / "max_energy_range_uj") or 0.0), _may_draw(zone))
            for zone in sorted(root.glob("intel-rapl:*"))
            if PACKAGE_ZONE.fullmatch(zone.name) and _text(zone / "name").startswith("package")
        ]
        self._root = root
        self._reading, self._total_j = threading.Lock(), 0.0
        self._last = self._counted()
        ranges = [package.range_j for package in self._packages if package.range_j]
        if watched and self._last is not None and ranges:
            # Half of the time in which the smallest could wrap.
            pause_s = min(ranges) / MOST_W / 2
            threading.Thread(target=self._watch, args=(pause_s,), daemon=True, name="energy").start()

    def joules(self) -> float | None:
        """Energy since this meter was made; None where it cannot be read."""
        with self._reading:
            counted = self._counted()
            if counted is None or self._last is None:
                return None
            for package, before, now in zip(self._packages, self._last, counted, strict=True):
                self._total_j += now - before + (package.range_j if now < before else 0.0)
            self._last = counted
            return self._total_j

    def max_power_w(self) -> float | None:
        """What all packages together may draw; None where one of them does not say."""
        told = [package.max_power_w for package in self._packages]
        return sum(each for each in told if each) if told and all(told) else None

    def lacking(self) -> str:
        """Why it tells no energy, in a phrase; empty where it does."""
        if not self._packages:
            return f"the kernel shows no energy counter of the processor ({self._root}/intel-rapl:0)"
        if self._last is None:
            return f"{self._packages[0].counter} cannot be read without root's rights"
        return ""

    def _counted(self) -> list[float] | None:
        counted = [_micro(package.counter) for package in self._packages]
        return None if not counted or None in counted else [each for each in counted if each is not None]

    def _watch(self, pause_s: float) -> None:
        while True:
            time.sleep(pause_s)
            self.joules()


def _may_draw(zone: Path) -> float | None:
    """The long-term limit of a package: the most that may be set, else what is set; None where it says neither."""
    return _micro(zone / "constraint_0_max_power_uw") or _micro(zone / "constraint_0_power_limit_uw") or None


def _micro(file: Path) -> float | None:
    """A number of millionths; None where there is none to be read."""
    try:
        return int(file.read_text()) * MICRO
    except (OSError, ValueError):
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
