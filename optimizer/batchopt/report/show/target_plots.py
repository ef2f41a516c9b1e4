"""The pictures of a target, as Plotly figures: steps and seconds to it, by batch size."""

from __future__ import annotations

import plotly.graph_objects as go

from batchopt.question.metric import Metric, Target
from batchopt.report.answer.targets import ToTarget
from batchopt.report.show.law_view import critical
from batchopt.report.show.plot_style import BLACK, BLUE, GREY, RED, escaped, one_two_five, styled


def steps_to_target(target: ToTarget, metric: Metric) -> go.Figure | None:
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
    if target.law is not None and target.law.followed:
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
            steps = [row.steps for row in target.reached]
            figure.add_trace(
                go.Scatter(
                    x=2 * [law.critical_batch_size],
                    y=[min(steps), max(steps)],
                    mode="lines",
                    line={"color": GREY, "dash": "dash"},
                    name="critical batch size",
                )
            )
    figure.update_xaxes(title="batch size, examples", type="log", tickvals=sizes, ticktext=[str(s) for s in sizes])
    steps = [row.steps for row in target.reached]
    ticks = one_two_five(min(steps), max(steps))
    figure.update_yaxes(
        title=f"optimizer steps to {Target(metric, target.target)}",
        type="log",
        tickvals=ticks,
        ticktext=[f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks],
    )
    return styled(figure, f"Steps to {_reached(target, metric)}")


def time_to_target(target: ToTarget, metric: Metric) -> go.Figure | None:
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
    figure.update_yaxes(title=f"training time to {Target(metric, target.target)}, s", rangemode="tozero")
    return styled(figure, f"Time to {_reached(target, metric)}").update_layout(showlegend=False)


def _reached(target: ToTarget, metric: Metric) -> str:
    return f"{Target(metric, target.target)} validation {escaped(metric.title)}"


def _marks(target: ToTarget) -> list[str]:
    """A downward triangle where no more is known than that it was within the first epoch."""
    return ["triangle-down" if row.within_first else "circle" for row in target.reached]


def _at_most(target: ToTarget) -> str:
    early = any(row.within_first for row in target.reached)
    return "; triangle: at most so much, within the first epoch" if early else ""
