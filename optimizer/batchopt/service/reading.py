"""What is read of a study over HTTP: its recommendation, report and trials."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from batchopt.errors import StorageNotFound
from batchopt.report.answer.reading import list_studies, read_evidence, read_study
from batchopt.service.answers import json_answer
from batchopt.service.naming import StudyName
from batchopt.service.studies import Studies


def recommendation_of(storage: str, study: str) -> Any:
    """What a study recommends, as JSON values; None before its first value."""
    return read_evidence(storage, study).report.describe().get("recommendation")


def add_reading(app: FastAPI, studies: Studies) -> None:
    """The routes of an application that only read."""
    storage = studies.storage

    @app.get("/healthz", tags=["service"])
    def health() -> dict[str, str]:
        """Whether it answers, and its database does."""
        # The first study makes it.
        with suppress(StorageNotFound):
            list_studies(storage)
        return {"status": "ok", "version": app.version}

    @app.get("/v1/studies/{study}/recommendation", tags=["study"])
    def recommendation(study: StudyName) -> Response:
        """What to use, as far as is known; null before the first complete trial."""
        return json_answer({"recommendation": recommendation_of(storage, study)})

    @app.get("/v1/studies/{study}/report", tags=["study"])
    def report(study: StudyName) -> Response:
        """All that the study has found."""
        return json_answer(read_evidence(storage, study).report.describe())

    @app.get("/v1/studies/{study}/report.html", response_class=HTMLResponse, tags=["study"])
    def report_page(study: StudyName) -> HTMLResponse:
        """The report with its pictures, as one page."""
        from batchopt.report.show.page import page

        return HTMLResponse(page(read_evidence(storage, study)))

    @app.get("/v1/studies/{study}/trials", tags=["study"])
    def trials(study: StudyName) -> Response:
        """Every trial with its epochs."""
        return json_answer([trial.describe() for trial in read_study(storage, study)])

    @app.get("/v1/studies/{study}/trials.csv", tags=["study"])
    def trials_csv(study: StudyName) -> Response:
        """The same as rows, one for each epoch."""
        rows = [row for trial in read_study(storage, study) for row in trial.rows()]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
        return Response(text.getvalue(), media_type="text/csv")
