"""What all pictures share: colours that are safe for the colour-blind and told apart in print, ticks, fonts."""

from __future__ import annotations

import html
import itertools
import math

import plotly.graph_objects as go

from batchopt.question.metric import Metric

BLUE, ORANGE, GREEN, RED, GREY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999", "#000000"
"""Okabe and Ito 2008, Color universal design."""

LIGHT_GREY = "#C8C8C8"
"""Of what is there and not named."""

DARK_GREY = "#444444"
"""Seen on the light part of the scale, where the values that matter are."""

SCALE = "Cividis"
"""Of values and batch sizes: even in lightness, so that it prints, and the same to the colour-blind."""


UNUSED_BUTTONS = ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"]
"""Plotly would show them over the end of a title."""

SHORT, MOST_TICKS = 8.0, 4
"""A range whose ends are less than so many times apart has at most about so many evenly spaced ticks."""


def one_two_five(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... around a range above 0, or numbers between them where it is short.

    Of a range that begins at 0, its upper three decades.
    """
    low = max(low, 1e-3 * high)
    if low <= 0:
        return []
    if high < SHORT * low:
        step = next(
            d * 10.0**e
            for e in itertools.count(math.floor(math.log10(low)) - 2)
            for d in (1, 2, 5)
            if (high - low) / (d * 10.0**e) <= MOST_TICKS
        )
        return [round(at * step, 12) for at in range(math.floor(low / step), math.ceil(high / step) + 1) if at]
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [tick for tick in (d * 10.0**e for e in decades for d in (1, 2, 5)) if low / 2 <= tick <= 2 * high]


def scaled(value: float | None, metric: Metric) -> float | None:
    """A value as it is written, for an axis; None stays a gap."""
    return None if value is None else metric.scaled(value)


def escaped(text: str) -> str:
    """A name of the user's, which is no markup."""
    return html.escape(text, quote=False)


def styled(figure: go.Figure, title: str) -> go.Figure:
    """The looks of all; as wide as there is room, and no higher than a card of optuna-dashboard."""
    return figure.update_layout(
        title={"text": title, "x": 0.02, "font": {"size": 16}},
        modebar={"remove": UNUSED_BUTTONS},
        template="simple_white",
        font={"size": 14},
        height=460,
        autosize=True,
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        legend={"orientation": "h", "y": -0.25, "x": 0, "font": {"size": 12}},
    )
