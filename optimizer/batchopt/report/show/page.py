"""A study's report as one file: the document and every picture that its data allow; opens without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.blocks import Mark, Paragraph, Section, Table
from batchopt.report.show.document import document, first_look, further
from batchopt.report.show.pictures import pictures
from batchopt.report.show.sentences import fact_lines
from batchopt.text import printable

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
h1 { font-size: 1.3rem; } .advice, .heading { font-weight: 600; } .small { color: #666; font-size: .85rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1.5rem 0; font-size: .9rem; }
th, td { padding: .1rem .6rem; text-align: right; white-space: nowrap; } td.words { text-align: left; }
thead th { border-bottom: 1px solid #111; } tr.recommended { font-weight: 600; }
.under { margin: .3rem 0 .3rem 1.2rem; } .table { overflow-x: auto; } .figure { width: 100%; overflow: hidden; }
svg.mark { width: 9rem; height: .9rem; vertical-align: middle; } .mark .band { fill: #009E73; opacity: .25; }
.mark line { stroke: #444; stroke-width: 1.5; } .mark circle { fill: #0072B2; }
.recommended .mark circle { fill: #D55E00; }
@media (max-width: 40rem) { body { margin: .5rem auto; padding: 0 .5rem; font-size: 15px; }
table { font-size: .75rem; } th, td { padding: .1rem .2rem; } th, .words, .interval { white-space: normal; }
svg.mark { display: none; } }
h2 { font-size: 1.1rem; font-weight: 400; margin: 2rem 0 0; }
@media (max-width: 40rem), (hover: none) { .modebar { display: none; } }
@media print { body { max-width: none; font-size: 11px; } .picture, table { break-inside: avoid; }
.table { overflow: visible; } }
"""

FRAGMENT_STYLE = """
.batchopt .advice, .batchopt .heading { font-weight: 600; } .batchopt .small { opacity: .7; font-size: .85em; }
.batchopt table { font-variant-numeric: tabular-nums; } .batchopt td, .batchopt th { text-align: right; }
.batchopt td.words { text-align: left; } .batchopt tr.recommended { font-weight: 600; }
.batchopt .under { margin-left: 1.2em; } .batchopt svg.mark { width: 9rem; height: .9rem; }
.batchopt .mark .band { fill: #009E73; opacity: .25; } .batchopt .mark line { stroke: #888; stroke-width: 1.5; }
.batchopt .mark circle { fill: #0072B2; }
"""

CONFIG = {"responsive": True, "displaylogo": False}
"""Figures take the width that there is."""

OF_A_TITLE = 40
"""Pixels above a figure that its title would take."""

ON_PAPER = """
const pictures = change => document.querySelectorAll(".js-plotly-plot").forEach(each => Plotly.relayout(each, change));
addEventListener("beforeprint", () => pictures({autosize: false, width: 640}));
addEventListener("afterprint", () => pictures({autosize: true, width: null}));
"""
"""A browser prints what it has drawn for the screen, and cuts it; so it is drawn as wide as paper is."""


def page(evidence: Evidence) -> str:
    """The report as HTML, Plotly's code included."""
    from plotly.io import to_html

    report = evidence.report
    parts = [f"<h1>Study {_text(report.study)}</h1>", *(_paragraph(line, "small") for line in fact_lines(report))]
    # What is decided by comes before what it was made from.
    parts.append(_blocks(first_look(report)))
    for at, (name, figure) in enumerate(pictures(evidence).items()):
        # As a heading, which has several lines where a screen is narrow; it is HTML there, too.
        heading = figure.layout.title.text
        figure.update_layout(title=None, margin_t=figure.layout.margin.t - OF_A_TITLE)
        drawn = to_html(figure, full_html=False, include_plotlyjs=at == 0, div_id=name, config=CONFIG)
        parts.append(f'<div class="picture"><h2>{heading}</h2><div class="figure">{drawn}</div></div>')
    parts += [_blocks(further(report)), f"<script>{ON_PAPER}</script>"]
    title = _text(f"batchopt: {report.study}")
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{view}<title>{title}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def fragment(report: Report) -> str:
    """The report's document as a part of another page, such as a notebook."""
    return f'<style>{FRAGMENT_STYLE}</style>\n<div class="batchopt">\n{_blocks(document(report))}\n</div>'


def _blocks(sections: Sequence[Section]) -> str:
    return "\n".join(_block(block) for section in sections for block in section)


def _text(text: str) -> str:
    return html.escape(printable(text))


def _block(block: Paragraph | Table) -> str:
    if isinstance(block, Paragraph):
        return _paragraph(block.text, block.role)
    marks = [_mark(mark) for mark in block.marks] or [""] * len(block.rows)
    head = "".join(f"<th>{_text(name)}</th>" for name in block.columns) + ("<th></th>" if block.marks else "")
    rows = zip(block.rows, marks, strict=True)
    body = "".join(_row(cells, drawn, marked=marked) for (cells, marked), drawn in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _paragraph(text: str, role: str = "") -> str:
    return f'<p class="{role}">{_text(text)}</p>' if role else f"<p>{_text(text)}</p>"


def _row(cells: Sequence[str], drawn: str, *, marked: bool) -> str:
    kind = ' class="recommended"' if marked else ""
    return f"<tr{kind}>" + "".join(_cell(cell) for cell in cells) + drawn + "</tr>"


def _mark(mark: Mark | None) -> str:
    """A cell with a dot and its interval, over the band of what is as good."""
    if mark is None:
        return "<td></td>"
    low, middle, high, left, right = (round(4 + 92 * at, 1) for at in (mark.low, mark.middle, mark.high, *mark.band))
    return (
        '<td><svg class="mark" viewBox="0 0 100 10" preserveAspectRatio="none" role="img">'
        f'<rect class="band" x="{left}" y="0" width="{round(max(right - left, 1), 1)}" height="10"/>'
        f'<line x1="{low}" x2="{high}" y1="5" y2="5"/><circle cx="{middle}" cy="5" r="3"/></svg></td>'
    )


def _cell(text: str) -> str:
    """A cell; words begin at the left, numbers end at the right; an interval has two lines where a screen is narrow."""
    kind = ' class="words"' if text[:1].isalpha() else ' class="interval"' if " to " in text else ""
    return f"<td{kind}>{_text(text)}</td>"
