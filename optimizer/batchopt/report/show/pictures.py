"""Every picture that a report may have, by name; a new one is a function of `plots.py` and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchopt.report.answer.evidence import Evidence
from batchopt.report.show import plots, target_plots

if TYPE_CHECKING:
    import plotly.graph_objects as go

PICTURES = ("pareto", "landscape", "learning_curves", "throughput", "time_to_target", "steps_to_target")
"""All that there may be, the one to decide by first."""


def pictures(evidence: Evidence) -> dict[str, go.Figure]:
    """The figures by name; one whose data are missing is left out."""
    report, trials = evidence.report, evidence.trials
    found: dict[str, go.Figure | None] = {}
    surface = evidence.surface()
    if surface is not None:
        found["landscape"] = plots.landscape(surface, trials, report)
    found["pareto"] = plots.pareto(report)
    if report.by_batch_size:
        found["throughput"] = plots.throughput(report.by_batch_size, trials, report.memory_bytes)
        found["learning_curves"] = plots.learning_curves(trials, report)
    if report.to_target is not None:
        found["time_to_target"] = target_plots.time_to_target(report.to_target, report.metric)
        found["steps_to_target"] = target_plots.steps_to_target(report.to_target, report.metric)
    return {name: figure for name in PICTURES if (figure := found.get(name)) is not None}
