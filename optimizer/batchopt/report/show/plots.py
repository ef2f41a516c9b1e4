"""The pictures of a study, as Plotly figures: records in, figures out. Colours are safe for the colour-blind, and told
apart in print; every axis has its unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from batchopt.report.answer.batch_sizes import BatchSizeRow
from batchopt.report.answer.recommendation import Report
from batchopt.report.answer.targets import ToTarget
from batchopt.report.show.law_view import critical
from batchopt.store.history import TrialRecord

if TYPE_CHECKING:
    from batchopt.search.advice import Surface


BLUE, ORANGE, GREEN, RED, GREY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999", "#000000"
"""Okabe and Ito 2008, Color universal design."""

DARK_GREY = "#444444"
"""Seen on the light part of the scale, where the values that matter are."""

SCALE = "Cividis"
"""Of values and batch sizes: even in lightness, so that it prints, and the same to the colour-blind."""

DOUBTS = (0.5, 1, 2, 5, 10, 20)
"""Half widths of the 90 % interval, in points, that the landscape has lines for."""

SHOWN_PART = 0.35
"""Of the posterior's range the upper part has colours of its own: what diverges is far below, and all alike."""


def landscape(surface: Surface, trials: Sequence[TrialRecord], report: Report) -> go.Figure:
    """Accuracy over batch size and learning rate: the posterior as colour, trials as marks."""
    mean = 100 * surface.mean
    floor = float(mean.max() - SHOWN_PART * (mean.max() - mean.min()))
    doubt = 50 * (surface.high - surface.low)
    names = [str(size) for size in surface.batch_sizes]
    figure = go.Figure(
        go.Heatmap(
            x=names,
            y=surface.learning_rates,
            z=mean,
            customdata=doubt,
            zmin=floor,
            zmax=float(mean.max()),
            colorscale=SCALE,
            colorbar={"title": "expected<br>accuracy, %", "thickness": 14},
            hovertemplate="%{x} x %{y:.2g}: %{z:.2f} ± %{customdata:.2f} % (90 %)<extra></extra>",
        )
    )
    levels = [level for level in DOUBTS if doubt.min() < level < doubt.max()]
    for level in levels:
        figure.add_trace(
            go.Contour(
                x=names,
                y=surface.learning_rates,
                z=doubt,
                contours={"start": level, "end": level, "size": 1, "coloring": "none", "showlabels": True},
                line={"color": DARK_GREY, "width": 1, "dash": "dot"},
                name="± points (90 %)",
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
                    text=[
                        f"trial {trial.number}: {trial.last.get('validation_accuracy') or 0:.2%}" for trial in chosen
                    ],
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
    return _styled(figure, "Expected validation accuracy")


def learning_curves(trials: Sequence[TrialRecord]) -> go.Figure:
    """Accuracy after each epoch, a line a trial, coloured by batch size."""
    trained = [trial for trial in trials if trial.batch_size and trial.epochs]
    logs = [math.log2(trial.batch_size or 1) for trial in trained]
    least, most = min(logs, default=0.0), max(logs, default=1.0)
    figure = go.Figure()
    from plotly.colors import sample_colorscale

    for trial, log in zip(trained, logs, strict=True):
        where = (log - least) / (most - least) if most > least else 0.5
        figure.add_trace(
            go.Scatter(
                x=[epoch["epoch"] for epoch in trial.epochs],
                y=[_percent(epoch["validation_accuracy"]) for epoch in trial.epochs],
                mode="lines+markers",
                line={"color": sample_colorscale(SCALE, where)[0], "width": 1.5},
                marker={"size": 5},
                showlegend=False,
                hovertemplate=f"trial {trial.number}: {trial.batch_size} x {trial.learning_rate:.2g}, "
                "epoch %{x}: %{y:.2f} %<extra></extra>",
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
    values = sorted(_percent(trial.last["validation_accuracy"]) or 0.0 for trial in trained)
    if values:
        # What never learned would press all that matters into one line.
        low = max(values[len(values) // 4] - 5.0, 0.0)
        figure.update_yaxes(range=[low, min(100.0, values[-1] + 0.05 * (values[-1] - low))])
    figure.update_xaxes(title="epoch", dtick=1)
    figure.update_yaxes(title="validation accuracy, %")
    return _styled(figure, "Learning curves")


def pareto(report: Report) -> go.Figure | None:
    """Accuracy against training time, a point for each batch size; None before anything is known."""
    advice = report.advice
    if advice is None:
        return None
    trained = {row.batch_size for row in report.by_batch_size}
    rows = sorted((row for row in advice.by_batch_size if row.batch_size in trained), key=lambda row: row.seconds)
    front = [row for at, row in enumerate(rows) if all(row.mean > faster.mean for faster in rows[:at])]
    figure = go.Figure(
        go.Scatter(
            x=[row.seconds for row in front],
            y=[100 * row.mean for row in front],
            mode="lines",
            line={"shape": "hv", "color": GREY, "width": 1.5, "dash": "dot"},
            name="front",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[row.seconds for row in rows],
            y=[100 * row.mean for row in rows],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * (row.high - row.mean) for row in rows],
                "arrayminus": [100 * (row.mean - row.low) for row in rows],
                "thickness": 1,
            },
            mode="markers+text",
            text=[str(row.batch_size) for row in rows],
            textposition="top right",
            marker={"size": 9, "color": [RED if row.batch_size == advice.best.batch_size else BLUE for row in rows]},
            name="batch size, at its best rate (90 % interval)",
        )
    )
    ticks = _one_two_five(rows[0].seconds, rows[-1].seconds) if rows else []
    figure.update_xaxes(
        title=f"training time of {report.goal['epochs']} epochs, s",
        type="log",
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_yaxes(title="expected validation accuracy, %")
    return _styled(figure, "Accuracy against training time")


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
    return _styled(figure, "Throughput and memory").update_layout(showlegend=False)


def steps_to_target(target: ToTarget) -> go.Figure | None:
    """Optimizer steps to the target over batch size, on log axes, with the law; None where none got there."""
    if not target.reached:
        return None
    sizes = [row.batch_size for row in target.reached]
    figure = go.Figure(
        go.Scatter(
            x=sizes,
            y=[row.steps for row in target.reached],
            mode="markers",
            marker={"size": 9, "color": BLUE, "symbol": _marks(target)},
            name="measured, best rate of each" + _at_most(target),
        )
    )
    if target.law is not None:
        law = target.law
        grid = [law.smallest * (law.largest / law.smallest) ** (at / 60) for at in range(61)]
        figure.add_trace(
            go.Scatter(
                x=grid,
                y=law(grid).tolist(),
                mode="lines",
                line={"color": BLACK, "width": 1.5},
                name=f"{law.min_steps:.3g} (1 + B / batch size), B {critical(law).split(' (')[0].split(',')[0]}",
            )
        )
        if law.smallest <= law.critical_batch_size <= law.largest:
            figure.add_vline(
                x=law.critical_batch_size, line={"color": GREY, "dash": "dash"}, annotation_text="critical"
            )
    figure.update_xaxes(title="batch size, examples", type="log", tickvals=sizes, ticktext=[str(s) for s in sizes])
    figure.update_yaxes(title=f"optimizer steps to {target.target:.1%}", type="log", exponentformat="power")
    return _styled(figure, f"Steps to {target.target:.1%} validation accuracy")


def time_to_target(target: ToTarget) -> go.Figure | None:
    """Training seconds to the target over batch size; None where none got there."""
    if not target.reached:
        return None
    sizes = [row.batch_size for row in target.reached]
    fastest = min(target.reached, key=lambda row: row.seconds)
    figure = go.Figure(
        go.Scatter(
            x=sizes,
            y=[row.seconds for row in target.reached],
            mode="lines+markers",
            line={"color": BLUE, "width": 1.5},
            marker={
                "size": 9,
                "color": [RED if row is fastest else BLUE for row in target.reached],
                "symbol": _marks(target),
            },
            text=[f"rate {row.learning_rate:.2g}, {row.epochs:.2g} epochs" for row in target.reached],
            hovertemplate="%{x}: %{y:.2f} s, %{text}<extra></extra>",
        )
    )
    title = "batch size, examples" + _at_most(target)
    figure.update_xaxes(title=title, type="log", tickvals=sizes, ticktext=[str(s) for s in sizes])
    figure.update_yaxes(title=f"training time to {target.target:.1%}, s", rangemode="tozero")
    return _styled(figure, f"Time to {target.target:.1%} validation accuracy").update_layout(showlegend=False)


def _marks(target: ToTarget) -> list[str]:
    """A downward triangle where no more is known than that it was within the first epoch."""
    return ["triangle-down" if row.within_first else "circle" for row in target.reached]


def _at_most(target: ToTarget) -> str:
    early = any(row.within_first for row in target.reached)
    return "; triangle: at most so much, within the first epoch" if early else ""


def _one_two_five(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... around a range above 0."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [tick for tick in (d * 10.0**e for e in decades for d in (1, 2, 5)) if low / 2 <= tick <= 2 * high]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _styled(figure: go.Figure, title: str) -> go.Figure:
    """The looks of all; as wide as there is room, and no higher than a card of optuna-dashboard."""
    return figure.update_layout(
        title={"text": title, "x": 0.02},
        template="simple_white",
        font={"size": 14},
        height=460,
        autosize=True,
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        legend={"orientation": "h", "y": -0.25, "x": 0, "font": {"size": 12}},
    )
