"""A study's report as one file: the advice, the table, every picture that its data allow; opens without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchopt.report.answer.evidence import Evidence
from batchopt.report.show import plots as figures
from batchopt.report.show.confirmation_view import confirmation_paragraphs
from batchopt.report.show.sentences import (
    Row,
    alternatives,
    doubts,
    headline,
    machine_sentences,
    table_cells,
    table_notes,
    target_sentences,
    training_cells,
)
from batchopt.text import printable

if TYPE_CHECKING:
    import plotly.graph_objects as go


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
h1 { font-size: 1.3rem; } .advice { font-weight: 600; } .dim { color: #666; font-size: .85rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1.5rem 0; font-size: .9rem; }
th, td { padding: .1rem .6rem; text-align: right; white-space: nowrap; } td.words { text-align: left; }
thead th { border-bottom: 1px solid #111; } tr.recommended { font-weight: 600; }
.figure { width: 100%; overflow: hidden; }
@media print { .figure { break-inside: avoid; } }
"""

CONFIG = {"responsive": True, "displaylogo": False}
"""Figures take the width that there is."""


PICTURES = ("landscape", "pareto", "throughput", "learning_curves", "time_to_target", "steps_to_target")
"""All figures that there may be."""


def pictures(evidence: Evidence) -> dict[str, go.Figure]:
    """The figures by name; one whose data are missing is left out."""
    report, trials = evidence.report, evidence.trials
    found: dict[str, go.Figure | None] = {}
    surface = evidence.surface()
    if surface is not None:
        found["landscape"] = figures.landscape(surface, trials, report)
    found["pareto"] = figures.pareto(report)
    if report.by_batch_size:
        found["throughput"] = figures.throughput(report.by_batch_size, trials, report.memory_bytes)
        found["learning_curves"] = figures.learning_curves(trials)
    if report.to_target is not None:
        found["time_to_target"] = figures.time_to_target(report.to_target)
        found["steps_to_target"] = figures.steps_to_target(report.to_target)
    return {name: figure for name, figure in found.items() if figure is not None}


def page(evidence: Evidence) -> str:
    """The report as HTML, Plotly's code included."""
    from plotly.io import to_html

    report = evidence.report
    parts = [f"<h1>Study {_text(report.study)}</h1>", _paragraph(headline(report), "advice")]
    parts += [_paragraph(sentence) for sentence in (*alternatives(report), *doubts(report), *report.notes)]
    if report.by_batch_size:
        parts += [_table(*table_cells(report)), *(_paragraph(sentence, "dim") for sentence in table_notes(report))]
        parts.append(_table(*training_cells(report)))
    parts += [_paragraph(sentence) for sentence in (*target_sentences(report), *machine_sentences(report))]
    parts += [_paragraph(sentence) for sentence in confirmation_paragraphs(report.confirmation)]
    for at, (name, figure) in enumerate(pictures(evidence).items()):
        drawn = to_html(figure, full_html=False, include_plotlyjs=at == 0, div_id=name, config=CONFIG)
        parts.append(f'<div class="figure">{drawn}</div>')
    machine = report.machine.get("device", "")
    parts.append(_paragraph(f"{report.storage}; trained on {machine}" if machine else report.storage, "dim"))
    title = _text(f"batchopt: {report.study}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _text(text: str) -> str:
    return html.escape(printable(text))


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{_text(text)}</p>' if kind else f"<p>{_text(text)}</p>"


def _table(names: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(_row(cells, marked=marked) for cells, marked in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(cells: Sequence[str], *, marked: bool) -> str:
    kind = ' class="recommended"' if marked else ""
    return f"<tr{kind}>" + "".join(_cell(cell) for cell in cells) + "</tr>"


def _cell(text: str) -> str:
    """A cell; words and bars begin at the left, numbers end at the right."""
    kind = ' class="words"' if text[:1].isalpha() or text.startswith("\N{FULL BLOCK}") else ""
    return f"<td{kind}>{_text(text)}</td>"
