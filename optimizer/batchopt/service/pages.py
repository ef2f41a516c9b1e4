"""Pages for people: the studies, and each one's live state. No script in them; a page asks for itself again."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from batchopt.errors import StorageNotFound
from batchopt.report.answer.reading import list_studies, read_evidence
from batchopt.report.show.page import STYLE, fragment
from batchopt.service.naming import StudyName
from batchopt.service.studies import Studies
from batchopt.store.access import opened
from batchopt.store.history import open_study
from batchopt.store.records import Records
from batchopt.study.live import LiveTrial, live_trials
from batchopt.text import printable

REFRESH_S = 5
"""How often a page asks for itself again."""

WRAPPED = ".live td.words { white-space: normal; overflow-wrap: break-word; min-width: 6rem; max-width: 16rem; }"
"""Reasons are sentences, and names may be long."""

SHOWN_TRIALS = 200
"""The newest; `/trials` has all."""


def add_pages(app: FastAPI, studies: Studies) -> None:
    """The pages of an application."""

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def index() -> HTMLResponse:
        """The studies."""
        try:
            found = list_studies(studies.storage)
        except StorageNotFound:
            found = []
        rows = [_index_row(study) for study in found]
        table = _table(["study", "metric", "complete", "pruned", "running", "paused", "failed", ""], rows)
        body = table if rows else "<p>There is no study yet. PUT one at /v1/studies/NAME; /docs shows how.</p>"
        links = '<p class="small"><a href="/dashboard">optuna-dashboard</a> · <a href="/docs">the API</a></p>'
        return _page("Studies", body + links)

    @app.get("/studies/{study}", response_class=HTMLResponse, include_in_schema=False)
    def live(study: StudyName) -> HTMLResponse:
        """One study as it is now."""
        with opened(studies.storage) as database:
            trials = live_trials(open_study(database, study), Records(database.db))
        report = read_evidence(studies.storage, study).report
        data = f"/v1/studies/{quote(study, safe='')}"
        names = ("report.html", "report", "trials", "trials.csv", "events")
        links = " · ".join(f'<a href="{data}/{name}">{name}</a>' for name in names)
        running = [trial for trial in trials if trial.state == "running"]
        paused = [trial for trial in trials if trial.state == "paused"]
        counts = f"<p>{len(trials)} trials, {len(running)} running, {len(paused)} paused</p>"
        over = [trial for trial in reversed(trials) if trial.state != "running"][:SHOWN_TRIALS]
        now, before = (_trials(part, report.metric.name) for part in (running, over))
        home = '<a href="/">all studies</a>'
        links = f'<p class="small">{home} · {links}</p>'
        return _page(f"Study {study}", f"{links}{counts}{now}{fragment(report)}{before}")


def _index_row(study: dict[str, Any]) -> list[str]:
    name, counts = study["study"], study["trials"]
    place = quote(name, safe="")
    numbers = [str(counts.get(state, 0)) for state in ("complete", "pruned", "running", "paused", "fail")]
    report = f'<a href="/v1/studies/{place}/report.html">report</a>'
    return [f'<a href="/studies/{place}">{_text(name)}</a>', _text(study["metric"]["name"]), *numbers, report]


def _trials(trials: list[LiveTrial], metric: str) -> str:
    columns = ["trial", "state", "batch size", "learning rate", "epochs", metric, "machine", "why"]
    return _table(columns, [_trial_row(trial) for trial in trials]) if trials else ""


def _trial_row(trial: LiveTrial) -> list[str]:
    rate = "" if trial.learning_rate is None else f"{trial.learning_rate:.3g}"
    value = "" if trial.value is None else f"{trial.value:.4g}"
    figures = [str(trial.batch_size or ""), rate, str(trial.epochs), value]
    return [str(trial.trial), trial.state, *figures, _text(trial.machine), _text(trial.note or trial.reason)]


def _table(columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="table live"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: str) -> str:
    """A cell; words begin at the left, and long ones are broken."""
    return f"<td>{cell}</td>" if cell[:1].isdigit() or cell[:1] in "-." else f'<td class="words">{cell}</td>'


def _text(text: str) -> str:
    return html.escape(printable(text))


def _page(title: str, body: str) -> HTMLResponse:
    head = (
        f'<meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH_S}">'
        f"<title>batchopt: {_text(title)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{WRAPPED}</style>"
    )
    return HTMLResponse(
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><h1>{_text(title)}</h1>\n{body}\n</body></html>\n'
    )
