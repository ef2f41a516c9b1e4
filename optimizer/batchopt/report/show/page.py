"""A study's report as one file: the document and every picture that its data allow; opens without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from batchopt.report.answer.evidence import Evidence
from batchopt.report.answer.recommendation import Report
from batchopt.report.show.blocks import Paragraph, Table
from batchopt.report.show.document import document
from batchopt.report.show.pictures import pictures
from batchopt.text import printable

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
h1 { font-size: 1.3rem; } .advice, .heading { font-weight: 600; } .small { color: #666; font-size: .85rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1.5rem 0; font-size: .9rem; }
th, td { padding: .1rem .6rem; text-align: right; white-space: nowrap; } td.words { text-align: left; }
thead th { border-bottom: 1px solid #111; } tr.recommended { font-weight: 600; }
.figure { width: 100%; overflow: hidden; }
@media print { .figure { break-inside: avoid; } }
"""

FRAGMENT_STYLE = """
.batchopt .advice, .batchopt .heading { font-weight: 600; } .batchopt .small { opacity: .7; font-size: .85em; }
.batchopt table { font-variant-numeric: tabular-nums; } .batchopt td, .batchopt th { text-align: right; }
.batchopt td.words { text-align: left; } .batchopt tr.recommended { font-weight: 600; }
"""

CONFIG = {"responsive": True, "displaylogo": False}
"""Figures take the width that there is."""


def page(evidence: Evidence) -> str:
    """The report as HTML, Plotly's code included."""
    from plotly.io import to_html

    report = evidence.report
    parts = [f"<h1>Study {_text(report.study)}</h1>", _blocks(report)]
    for at, (name, figure) in enumerate(pictures(evidence).items()):
        drawn = to_html(figure, full_html=False, include_plotlyjs=at == 0, div_id=name, config=CONFIG)
        parts.append(f'<div class="figure">{drawn}</div>')
    if machine := report.machine.get("device"):
        parts.append(_paragraph(f"trained on {machine}", "small"))
    title = _text(f"batchopt: {report.study}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def fragment(report: Report) -> str:
    """The report's document as a part of another page, such as a notebook."""
    return f'<style>{FRAGMENT_STYLE}</style>\n<div class="batchopt">\n{_blocks(report)}\n</div>'


def _blocks(report: Report) -> str:
    return "\n".join(_block(block) for section in document(report) for block in section)


def _text(text: str) -> str:
    return html.escape(printable(text))


def _block(block: Paragraph | Table) -> str:
    if isinstance(block, Paragraph):
        return _paragraph(block.text, block.role)
    head = "".join(f"<th>{_text(name)}</th>" for name in block.columns)
    body = "".join(_row(cells, marked=marked) for cells, marked in block.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _paragraph(text: str, role: str = "") -> str:
    return f'<p class="{role}">{_text(text)}</p>' if role else f"<p>{_text(text)}</p>"


def _row(cells: Sequence[str], *, marked: bool) -> str:
    kind = ' class="recommended"' if marked else ""
    return f"<tr{kind}>" + "".join(_cell(cell) for cell in cells) + "</tr>"


def _cell(text: str) -> str:
    """A cell; words and bars begin at the left, numbers end at the right."""
    kind = ' class="words"' if text[:1].isalpha() or text.startswith("\N{FULL BLOCK}") else ""
    return f"<td{kind}>{_text(text)}</td>"
