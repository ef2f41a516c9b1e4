"""What a probe found, for the terminal: the machine, its knee, a row for each batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from batchopt.machine.memory import shown_bytes
from batchopt.words import listed

NOISY = 0.5
"""Of a step's time: timings that vary by more than this are no measurement."""


def inspection_view(found: Mapping[str, Any]) -> RenderableType:
    """A probe as one screen.

    Args:
        found: as `Inspection.describe` writes it.
    """
    lines = [f"{name:<9}{text}" for name, text in _lines(found)]
    return Group(Text("\n".join(lines)), "", _table(found["batch_sizes"]), "", Text(_advice(found), style="bold"))


def _lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, memory = found["machine"], found["memory"]
    device = f"{machine['kind'].upper()} {machine['device']}"
    if machine["kind"] == "gpu":
        driver = f", driver {machine['driver']}, CUDA {machine['cuda']}" if machine["driver"] else ""
        device += f" (1 of {machine['gpus']}){driver}"
    else:
        device += ", no GPU"
    free = f"{shown_bytes(machine['device_memory_bytes'])}, {shown_bytes(machine['device_free_bytes'])} of it free"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = "data on the device" if memory["data_on_device"] else "data on the host"
    return [
        ("machine", f"{machine['fingerprint']}"),
        ("device", device),
        ("memory", f"{free}; {shown_bytes(memory['capacity_bytes'])} for training"),
        ("host", f"{machine['processor']}, {machine['cores']} cores, {shown_bytes(machine['memory_bytes'])}"),
        ("energy", _energy(machine)),
        ("versions", versions),
        ("program", f"{found['program']['parameters']:,} parameters, {found['program']['train_examples']:,} examples"),
        ("engine", f"{found['engine']}, {where}"),
        *(("refused", f"{engine}: {why}") for engine, why in found["refused"].items()),
    ]


def _energy(machine: Mapping[str, Any]) -> str:
    """What counts it, and how much there may be; or why nothing does."""
    if not machine["energy"]:
        return f"not counted: {machine['no_energy']}"
    most = machine["max_power_w"]
    return f"counted by {machine['energy']}" + (f", at most {most:,.0f} W" if most else ", the most is not known")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("batch size", "us/step", "+-", "s/epoch", "examples/s", "memory", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        timed = row["step_time_s"] is not None
        table.add_row(
            str(row["batch_size"]),
            f"{1e6 * row['step_time_s']:.3g}" if timed else "",
            f"{1e6 * row['spread_s']:.2g}" if timed else "",
            f"{row['seconds_per_epoch']:.3g}" if row["seconds_per_epoch"] and row["fits"] else "",
            f"{row['examples_per_second']:,.0f}" if row["examples_per_second"] and row["fits"] else "",
            shown_bytes(row["memory_bytes"]) if row["memory_bytes"] is not None else "",
            "" if row["fits"] else "does not fit",
            style="" if row["fits"] else "dim",
        )
    return table


def _advice(found: Mapping[str, Any]) -> str:
    unsure = [row["batch_size"] for row in found["batch_sizes"] if _noisy(row)]
    if not unsure:
        return _summary(found)
    sizes = listed([str(size) for size in unsure])
    doubt = f"Step times of {sizes} vary by more than half: the machine is busy. Probe again when it is not."
    return f"{_summary(found)} {doubt}"


def _noisy(row: Mapping[str, Any]) -> bool:
    return row["step_time_s"] is not None and row["spread_s"] > NOISY * row["step_time_s"]


def _summary(found: Mapping[str, Any]) -> str:
    largest, knee = found["max_batch_size"], found["knee_batch_size"]
    fits = "All of these batch sizes fit in memory" if largest is None else f"Batch sizes up to {largest} fit in memory"
    if knee is None:
        return f"{fits}; probed in {found['probe_seconds']:.1f} s."
    return (
        f"{fits}. At {knee:.0f} (the knee) fixed overhead equals per-example cost: far below it "
        f"the device is mostly idle, far above it larger batches gain little. Probed in {found['probe_seconds']:.1f} s."
    )
