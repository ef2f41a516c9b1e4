"""A report as one document, in the order of what a reader needs: advice, what would change it, tables, laws, machine.

The terminal, the page and the note of optuna-dashboard print it, each in its own way and none of them with words of
its own. What a first look can do without is left to `details`.
"""

from __future__ import annotations

from batchopt.report.answer.recommendation import Report
from batchopt.report.show.advice_view import advice_sentences, headline
from batchopt.report.show.blocks import Paragraph, Section, paragraphs
from batchopt.report.show.confirmation_view import confirmation_sentences, confirmation_table
from batchopt.report.show.goal_view import front_table
from batchopt.report.show.sentences import doubts, fact_lines, machine_lines, machine_sentences, target_sentences
from batchopt.report.show.tables import (
    answer_notes,
    answer_table,
    details_notes,
    details_table,
    training_table,
)

MORE = "batchopt report --details shows more: chances, speed, memory, the laws of steps and of step times."


def document(report: Report, *, details: bool = True) -> list[Section]:
    """All that is said of a study but its pictures; sections that have nothing to say are left out.

    Args:
        report: of the study.
        details: whether to go on where a first look ends.
    """
    more = [MORE] if not details and report.by_batch_size else []
    facts = [Paragraph(line, "small") for line in [*more, *fact_lines(report)]]
    return [*first_look(report), *(further(report) if details else _machines(report)), *([facts] if facts else [])]


def first_look(report: Report) -> list[Section]:
    """What to use, how sure that is, what would change it, and what each batch size is worth."""
    sections: list[Section] = [
        *_front(report),
        [Paragraph(headline(report), "advice"), *_indented(advice_sentences(report))],
        paragraphs([*report.outlook, *report.notes]),
        *_confirmation(report),
        *_answer(report),
    ]
    return [section for section in sections if section]


def further(report: Report) -> list[Section]:
    """What a first look can do without: chances, training, laws, and the machines."""
    return [section for section in [*_details(report), *_machines(report)] if section]


def _machines(report: Report) -> list[Section]:
    lines = machine_lines(report)
    return [paragraphs(lines)] if lines else []


def _indented(sentences: list[str]) -> list[Paragraph]:
    return [Paragraph(sentence, "under") for sentence in sentences]


def _front(report: Report) -> list[Section]:
    """The answer to the goal `pareto`, which is more than one configuration."""
    if not report.front:
        return []
    heading = Paragraph("Pareto front: no other batch size is expected to be both faster and better", "heading")
    return [[heading, front_table(report)]]


def _confirmation(report: Report) -> list[Section]:
    if report.confirmation is None:
        return []
    said = paragraphs(confirmation_sentences(report.confirmation, report.metric))
    return [[confirmation_table(report.confirmation, report.metric), *said]]


def _answer(report: Report) -> list[Section]:
    if not report.by_batch_size:
        return []
    table = answer_table(report)
    return [[table, *(Paragraph(note, "small") for note in answer_notes(report, table))]]


def _details(report: Report) -> list[Section]:
    sections: list[Section] = [paragraphs(doubts(report))]
    if report.by_batch_size:
        notes = [Paragraph(note, "small") for note in details_notes(report)]
        sections += [[details_table(report), *notes], [training_table(report)]]
    return [*sections, paragraphs([*target_sentences(report), *machine_sentences(report)])]
