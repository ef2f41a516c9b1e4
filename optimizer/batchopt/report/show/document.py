"""A report as one document, in the order of what a reader needs: advice, doubts, tables, laws, machines.

The terminal, the page and the note of optuna-dashboard print it, each in its own way and none of them with words of
its own.
"""

from __future__ import annotations

from batchopt.report.answer.recommendation import Report
from batchopt.report.show.blocks import Paragraph, Section, paragraphs
from batchopt.report.show.confirmation_view import confirmation_sentences, confirmation_table
from batchopt.report.show.goal_view import front_table
from batchopt.report.show.sentences import (
    alternatives,
    doubts,
    headline,
    machine_lines,
    machine_sentences,
    target_sentences,
)
from batchopt.report.show.tables import training_table, worth_notes, worth_table
from batchopt.text import printable


def document(report: Report) -> list[Section]:
    """All that is said of a study but its pictures; sections that have nothing to say are left out."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(report.trials.items())) or "none"
    sections: list[Section] = [
        [Paragraph(headline(report), "advice"), *paragraphs(alternatives(report))],
        paragraphs([*doubts(report), *report.notes]),
        *_tables(report),
        paragraphs([*target_sentences(report), *machine_sentences(report)]),
        paragraphs(machine_lines(report)),
        [Paragraph(f"study {printable(report.study)} in {report.storage}; trials: {counts}", "small")],
    ]
    return [section for section in sections if section]


def _tables(report: Report) -> list[Section]:
    sections: list[Section] = []
    if report.front:
        heading = Paragraph("Pareto front: no other batch size is both faster and as good", "heading")
        sections.append([heading, front_table(report)])
    if report.confirmation is not None:
        said = paragraphs(confirmation_sentences(report.confirmation, report.metric))
        sections.append([confirmation_table(report.confirmation, report.metric), *said])
    if report.by_batch_size:
        worth = worth_table(report)
        notes = [Paragraph(sentence, "small") for sentence in worth_notes(report, worth)]
        sections += [[worth, *notes], [training_table(report)]]
    return sections
