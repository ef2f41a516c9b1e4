"""The pictures of a study, as Plotly figures: records in, figures out; every axis has its unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from batchopt.question.metric import Metric
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.plot_style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREY,
    ORANGE,
    RED,
    SCALE,
    escaped,
    one_two_five,
    scaled,
    styled,
)
from batchopt.store.history import TrialRecord

if TYPE_CHECKING:
    from batchopt.search.surface import Surface


SHOWN_PART = 0.35
"""Of the posterior's range the upper part has colours of its own: what diverges is far below, and all alike."""


def landscape(surface: Surface, trials: Sequence[TrialRecord], report: Report) -> go.Figure:
    """The metric over batch size and learning rate: the posterior as colour, trials as marks."""
    metric = report.metric
    mean, doubt = metric.scaled(1.0) * surface.mean, metric.scaled(0.5) * (surface.high - surface.low)
    part = SHOWN_PART * (mean.max() - mean.min())
    best_is_high, unit = metric.direction == "maximize", ", %" if metric.is_accuracy else ""
    names = [str(size) for size in surface.batch_sizes]
    figure = go.Figure(
        go.Heatmap(
            x=names,
            y=surface.learning_rates,
            z=mean,
            customdata=doubt,
            zmin=float(mean.max() - part if best_is_high else mean.min()),
            zmax=float(mean.max() if best_is_high else mean.min() + part),
            colorscale=SCALE,
            reversescale=not best_is_high,
            colorbar={"title": f"expected<br>{escaped(metric.title)}{unit}", "thickness": 14},
            hovertemplate=f"%{{x}} x %{{y:.2g}}: %{{z:.4g}} ± %{{customdata:.2g}}{unit[1:]} (90 %)<extra></extra>",
        )
    )
    levels = [level for level in one_two_five(doubt.min(), doubt.max()) if doubt.min() < level < doubt.max()][-6:]
    for level in levels:
        figure.add_trace(
            go.Contour(
                x=names,
                y=surface.learning_rates,
                z=doubt,
                contours={"start": level, "end": level, "size": 1, "coloring": "none", "showlabels": True},
                line={"color": DARK_GREY, "width": 1, "dash": "dot"},
                name="± points (90 %)" if metric.is_accuracy else "± (90 %)",
                showlegend=level == levels[0],
                hoverinfo="skip",
            )
        )
    for name, symbol, wanted in (
        ("complete", "circle", lambda trial: trial.state == "complete"),
        ("stopped or paused", "circle-open", lambda trial: trial.state in ("pruned", "running") and not trial.note),
        ("diverged or out of memory", "x", lambda trial: bool(trial.note)),
    ):
        chosen = [trial for trial in trials if trial.batch_size and trial.learning_rate and wanted(trial)]
        if chosen:
            # White in black is seen on every colour of the map, and on paper.
            shape = {"symbol": symbol, "size": 9, "color": "white", "line": {"width": 1.5, "color": BLACK}}
            if symbol == "circle-open":
                shape |= {"symbol": "circle-dot", "size": 8, "color": GREY}
            figure.add_trace(
                go.Scatter(
                    x=[str(trial.batch_size) for trial in chosen],
                    y=[trial.learning_rate for trial in chosen],
                    mode="markers",
                    name=name,
                    marker=shape,
                    text=[f"trial {trial.number}: {metric.shown(trial.last.get('value'))}" for trial in chosen],
                    hovertemplate="%{x} x %{y:.2g}, %{text}<extra></extra>",
                )
            )
    best = report.recommendation
    if best is not None:
        figure.add_trace(
            go.Scatter(
                x=[str(best.batch_size)],
                y=[best.learning_rate],
                mode="markers",
                name="recommended",
                marker={"symbol": "star", "size": 18, "color": RED, "line": {"width": 1.5, "color": BLACK}},
            )
        )
    figure.update_xaxes(title="batch size, examples", type="category", tickangle=0, tickfont={"size": 11})
    figure.update_yaxes(title="learning rate (log)", type="log", exponentformat="power", dtick=1)
    return styled(figure, f"Expected validation {escaped(metric.title)}")


def learning_curves(trials: Sequence[TrialRecord], metric: Metric) -> go.Figure:
    """The metric after each epoch, a line a trial, coloured by batch size."""
    trained = [trial for trial in trials if trial.batch_size and trial.learning_rate and trial.epochs]
    logs = [math.log2(trial.batch_size or 1) for trial in trained]
    least, most = min(logs, default=0.0), max(logs, default=1.0)
    figure = go.Figure()
    from plotly.colors import sample_colorscale

    for trial, log in zip(trained, logs, strict=True):
        where = (log - least) / (most - least) if most > least else 0.5
        figure.add_trace(
            go.Scatter(
                x=[epoch["epoch"] for epoch in trial.epochs],
                y=[scaled(epoch["value"], metric) for epoch in trial.epochs],
                mode="lines+markers",
                line={"color": sample_colorscale(SCALE, where)[0], "width": 1.5},
                marker={"size": 5},
                showlegend=False,
                hovertemplate=f"trial {trial.number}: {trial.batch_size} x {trial.learning_rate:.2g}, "
                "epoch %{x}: %{y:.4g}<extra></extra>",
            )
        )
    ticks = sorted({round(log) for log in logs})
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            showlegend=False,
            marker={
                "colorscale": SCALE,
                "cmin": least,
                "cmax": max(most, least + 1),
                "color": [least],
                "colorbar": {
                    "title": "batch size,<br>examples",
                    "tickvals": ticks,
                    "ticktext": [str(2**tick) for tick in ticks],
                    "thickness": 14,
                },
            },
        )
    )
    scores = sorted(metric.score(trial.last["value"]) for trial in trained if trial.last["value"] is not None)
    if scores:
        # What never learned would press all that matters into one line.
        middle, best = scores[len(scores) // 4], scores[-1]
        worst = middle - (0.05 if metric.is_accuracy else 0.5 * (best - middle))
        ends = [metric.sign * metric.scaled(worst), metric.sign * metric.scaled(best + 0.05 * (best - worst))]
        low, high = sorted(ends)
        if metric.is_accuracy:
            low, high = max(low, 0.0), min(high, 100.0)
        if low < high:
            figure.update_yaxes(range=[low, high])
    figure.update_xaxes(title="epoch", dtick=1)
    figure.update_yaxes(title=escaped(metric.axis))
    return styled(figure, "Learning curves")


def pareto(report: Report) -> go.Figure | None:
    """The metric against training time, a point for each batch size; None before anything is known."""
    advice, metric = report.in_metric, report.metric
    if advice is None:
        return None
    trained = {row.batch_size for row in report.by_batch_size}
    rows = sorted((row for row in advice.by_batch_size if row.batch_size in trained), key=lambda row: row.seconds)
    scores = [metric.score(row.mean) for row in rows]
    front = [row for at, row in enumerate(rows) if all(scores[at] > faster for faster in scores[:at])]
    figure = go.Figure(
        go.Scatter(
            x=[row.seconds for row in front],
            y=[metric.scaled(row.mean) for row in front],
            mode="lines",
            line={"shape": "hv", "color": GREY, "width": 1.5, "dash": "dot"},
            name="front",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[row.seconds for row in rows],
            y=[metric.scaled(row.mean) for row in rows],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [metric.scaled(row.high - row.mean) for row in rows],
                "arrayminus": [metric.scaled(row.mean - row.low) for row in rows],
                "thickness": 1,
            },
            mode="markers+text",
            text=[str(row.batch_size) for row in rows],
            textposition="top right",
            marker={
                "size": 9,
                "color": [RED if row.batch_size == advice.recommended.batch_size else BLUE for row in rows],
            },
            name="batch size, at its best rate (90 % interval)",
        )
    )
    ticks = one_two_five(rows[0].seconds, rows[-1].seconds) if rows else []
    figure.update_xaxes(
        title=f"training time of {report.goal['epochs']} epochs, s",
        type="log",
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_yaxes(title=f"expected {escaped(metric.axis)}")
    name = metric.title.capitalize() if metric.is_accuracy else escaped(metric.title)
    return styled(figure, f"{name} against training time")


def throughput(rows: Sequence[BatchSizeRow], trials: Sequence[TrialRecord], limit_bytes: float | None) -> go.Figure:
    """Examples per second and peak memory over batch size."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    sizes = [row.batch_size for row in rows]
    figure.add_trace(
        go.Scatter(x=sizes, y=[row.examples_per_second for row in rows], mode="lines+markers", line={"color": BLUE}),
        row=1,
        col=1,
    )
    peaks: dict[int, float] = {}
    for trial in trials:
        for epoch in trial.epochs:
            if trial.batch_size and epoch.get("peak_bytes"):
                peaks[trial.batch_size] = max(peaks.get(trial.batch_size, 0.0), epoch["peak_bytes"])
    figure.add_trace(
        go.Scatter(
            x=sorted(peaks),
            y=[peaks[size] / 2**20 for size in sorted(peaks)],
            mode="lines+markers",
            line={"color": ORANGE},
        ),
        row=2,
        col=1,
    )
    if limit_bytes and peaks and limit_bytes < 20 * max(peaks.values()):
        figure.add_hline(
            y=limit_bytes / 2**20, line={"color": RED, "dash": "dash"}, annotation_text="limit", row=2, col=1
        )
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(size) for size in sizes])
    figure.update_xaxes(title="batch size, examples", row=2, col=1)
    figure.update_yaxes(title="examples/s", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="peak memory, MiB", rangemode="tozero", row=2, col=1)
    return styled(figure, "Throughput and memory").update_layout(showlegend=False)
