"""The pictures of a study, as Plotly figures: records in, figures out; every axis has its unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from batchopt.question.metric import Metric
from batchopt.question.space import COMMON_BATCH_SIZE
from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.plot_style import (
    BLACK,
    BLUE,
    DARK_GREY,
    GREEN,
    GREY,
    LIGHT_GREY,
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
    from batchopt.search.advice import Estimate
    from batchopt.search.surface import Surface


SHOWN_TOLERANCES = 12.0
"""So far below the best the metric is shown against time, in tolerances."""

ROOM, NAME_LINES = 0.07, 3
"""Part of the width that a batch size takes as text, and on how many lines they stand."""

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
    levels = [level for level in one_two_five(doubt.min(), doubt.max()) if doubt.min() < level < doubt.max()][-6:][
        ::-2
    ][::-1]
    for level in levels:
        figure.add_trace(
            go.Contour(
                x=names,
                y=surface.learning_rates,
                z=doubt,
                contours={"start": level, "end": level, "size": 1, "coloring": "none", "showlabels": True},
                line={"color": DARK_GREY, "width": 1, "dash": "dot"},
                name=f"uncertain by ± {'points' if metric.is_accuracy else metric.title} (90 %)",
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
    figure.update_xaxes(title="batch size, examples", type="category", tickfont={"size": 11})
    figure.update_yaxes(title="learning rate (log)", type="log", exponentformat="power", dtick=1)
    return styled(figure, f"Expected validation {escaped(metric.title)}")


def learning_curves(trials: Sequence[TrialRecord], report: Report) -> go.Figure:
    """The metric after each epoch: what is recommended, the fastest, the best and 32 in colour, the rest grey."""
    metric = report.metric
    trained = [trial for trial in trials if trial.batch_size and trial.learning_rate and trial.epochs]
    named = _named_curves(trained, report)
    figure = go.Figure()
    # What is named is drawn over the rest.
    for trial in sorted(trained, key=lambda trial: trial.number in named):
        name, colour = named.get(trial.number, ("other trials", LIGHT_GREY))
        special = trial.number in named
        figure.add_trace(
            go.Scatter(
                x=[epoch["epoch"] for epoch in trial.epochs],
                y=[scaled(epoch["value"], metric) for epoch in trial.epochs],
                mode="lines+markers",
                line={"color": colour, "width": 2.5 if special else 1},
                marker={"size": 6 if special else 3},
                name=name,
                legendgroup=name,
                showlegend=special or all(trace.name != name for trace in figure.data),
                hovertemplate=f"trial {trial.number}: {trial.batch_size} x {trial.learning_rate:.2g}, "
                "epoch %{x}: %{y:.4g}<extra></extra>",
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
    last = max((len(trial.epochs) for trial in trained), default=1)
    figure.update_xaxes(title="epoch", dtick=max(1, round(last / 10)))
    figure.update_yaxes(title=escaped(metric.axis))
    return styled(figure, "Learning curves")


def _named_curves(trials: Sequence[TrialRecord], report: Report) -> dict[int, tuple[str, str]]:
    """By trial, what its curve is called and its colour: the best trial of each batch size that matters."""
    advice, metric = report.in_metric, report.metric
    if advice is None:
        return {}
    sizes: dict[int, tuple[str, str]] = {}
    for size, what, colour in (
        (advice.recommended.batch_size, "recommended", RED),
        (advice.best.batch_size, "expected best", BLUE),
        (advice.fastest.batch_size, "fastest as good", GREEN),
        (COMMON_BATCH_SIZE, "common", BLACK),
    ):
        sizes.setdefault(size, (f"{size}, {what}", colour))
    found = {}
    for size, shown in sizes.items():
        same = [trial for trial in trials if trial.batch_size == size and trial.last["value"] is not None]
        own = [
            trial
            for trial in same
            if size == advice.recommended.batch_size and trial.number == advice.recommended.trial
        ]
        if same:
            best = max(own or same, key=lambda trial: (len(trial.epochs), metric.score(trial.last["value"])))
            found[best.number] = shown
    return found


def pareto(report: Report) -> go.Figure | None:
    """The metric against training time, a point for each batch size; None before anything is known."""
    advice, metric = report.in_metric, report.metric
    if advice is None:
        return None
    trained = {row.batch_size for row in report.by_batch_size}
    rows = sorted((row for row in advice.by_batch_size if row.batch_size in trained), key=lambda row: row.seconds)
    if not rows:
        return None
    known = [row for row in rows if row.seconds > 0]
    front = _front(known, metric)
    best = metric.score(advice.best.mean)
    top = max(metric.score(row.high if metric.sign > 0 else row.low) for row in rows)
    # Where the decision is: what is far behind is not drawn, and would press the rest into one line.
    bottom = max(
        min(metric.score(row.mean) for row in rows) - advice.tolerance, best - SHOWN_TOLERANCES * advice.tolerance
    )
    shown = [row for row in known if metric.score(row.mean) >= bottom]
    bottom = max(bottom, min(metric.score(row.low if metric.sign > 0 else row.high) for row in shown))
    room = 0.05 * (top - bottom)
    ends = sorted(metric.scaled(metric.sign * score) for score in (bottom - room, top + room))
    figure = go.Figure()
    band = sorted(metric.scaled(metric.sign * score) for score in (best - advice.tolerance, best))
    figure.add_hrect(y0=band[0], y1=band[1], fillcolor=GREEN, opacity=0.15, line_width=0, layer="below")
    square = {"symbol": "square", "size": 12, "color": GREEN, "opacity": 0.3}
    within = f"as good within {metric.shown_amount(advice.tolerance)}"
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=square, name=within))
    figure.add_trace(
        go.Scatter(
            x=[row.seconds for row in front],
            y=[metric.scaled(row.mean) for row in front],
            mode="lines",
            line={"shape": "hv", "color": GREY, "width": 1.5, "dash": "dot"},
            name="front",
            hoverinfo="skip",
        )
    )
    for rows_of, name, colour, symbol in (
        ([row for row in shown if row is not advice.recommended], "batch size, at its best rate", BLUE, "circle"),
        ([advice.recommended], "recommended", RED, "star"),
    ):
        figure.add_trace(
            go.Scatter(
                x=[row.seconds for row in rows_of],
                y=[metric.scaled(row.mean) for row in rows_of],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [metric.scaled(row.high - row.mean) for row in rows_of],
                    "arrayminus": [metric.scaled(row.mean - row.low) for row in rows_of],
                    "thickness": 1,
                },
                mode="markers",
                marker={"size": 15 if symbol == "star" else 9, "color": colour, "symbol": symbol},
                name=f"{name} (90 % interval)",
                text=[f"{row.batch_size} x {row.learning_rate:.2g}" for row in rows_of],
                hovertemplate="%{text}: %{y:.4g} after %{x:.3g} s<extra></extra>",
            )
        )
    # The names stand above the picture, each above its point: beside them they would cover intervals.
    for row, line in _lines(shown):
        figure.add_annotation(
            x=math.log10(row.seconds),
            y=1.0 + 0.055 * line,
            yref="paper",
            text=f"<b>{row.batch_size}</b>" if row is advice.recommended else str(row.batch_size),
            showarrow=False,
            yanchor="bottom",
            font={"size": 12, "color": RED if row is advice.recommended else BLACK},
        )
    ticks = one_two_five(known[0].seconds, known[-1].seconds) if known else []
    epochs = f"{'at most ' if any(map(report.ends_early, known)) else ''}{report.goal['epochs']} epochs"
    figure.update_xaxes(
        title=f"training time of {epochs} (log), s",
        type="log",
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_yaxes(title=f"expected {escaped(metric.axis)}", range=ends)
    name = metric.title.capitalize() if metric.is_accuracy else escaped(metric.title)
    drawn = styled(figure, f"{name} against training time")
    return drawn.update_layout(margin_t=100, title_y=0.96, title_yanchor="top")


def _front(rows: Sequence[Estimate], metric: Metric) -> list[Estimate]:
    """Of rows by their seconds, those than which none before is better."""
    scores = [metric.score(row.mean) for row in rows]
    return [row for at, row in enumerate(rows) if all(scores[at] > faster for faster in scores[:at])]


def _lines(rows: Sequence[Estimate]) -> list[tuple[Estimate, int]]:
    """Of rows by their seconds, each with the lowest line on which its name has room; none where no line has."""
    width = math.log10(rows[-1].seconds / rows[0].seconds) or 1.0 if rows else 1.0
    last, found = [-math.inf] * NAME_LINES, []
    for row in rows:
        at = math.log10(row.seconds) / width
        line = next((line for line in range(NAME_LINES) if at - last[line] >= ROOM), None)
        if line is not None:
            last[line] = at
            found.append((row, line))
    return found


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
