"""What optuna-dashboard shows of a study beside its trials: the advice as the study's note, and the pictures."""

from __future__ import annotations

from optuna.study import Study

from optimizer.report.confirmation_view import confirmation_paragraphs
from optimizer.report.evidence import Evidence
from optimizer.report.page import pictures
from optimizer.report.recommendation import Report
from optimizer.report.report_view import alternatives, doubts, headline, noise_beside_law, table_cells, target_sentences

METRICS = {
    "accuracy": ["validation accuracy"],
    "time": ["seconds to the target"],
    "pareto": ["validation accuracy", "training seconds"],
}
"""What the values of a trial are, by goal."""


def show(study: Study, evidence: Evidence) -> None:
    """Write the note, the figures and the metric's name into a study; again, they take the place of the last ones."""
    # It brings a web server along, which nothing else needs.
    from optuna_dashboard import save_note, save_plotly_graph_object

    study.set_metric_names(METRICS[evidence.report.goal["kind"]])
    save_note(study, note(evidence.report))
    for name, figure in pictures(evidence).items():
        save_plotly_graph_object(study, figure, graph_object_id=name.replace("_", "-"))


def note(report: Report) -> str:
    """The advice in Markdown, with the table."""
    sentences = [*alternatives(report), *target_sentences(report), *noise_beside_law(report), *doubts(report)]
    sentences += confirmation_paragraphs(report.confirmation)
    lines = [f"**{headline(report)}**", "", *(f"{sentence}\n" for sentence in sentences)]
    if report.by_batch_size:
        names, rows = table_cells(report)
        lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        lines += ["| " + " | ".join(_marked(cells, marked=marked)) + " |" for cells, marked in rows]
    return "\n".join(lines)


def _marked(cells: list[str], *, marked: bool) -> list[str]:
    return [f"**{cell}**" if cell else "" for cell in cells] if marked else cells
