"""Looking on over HTTP: what happens as server-sent events, and figures for Prometheus.

Both are read from the database, so that it does not matter which of several servers is asked, nor which was told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from batchopt.errors import StorageNotFound
from batchopt.report.answer.reading import list_studies
from batchopt.service.naming import StudyName
from batchopt.service.studies import Served, Studies
from batchopt.study.live import LiveTrial, live_trials
from batchopt.words import finite

LOOK_SECONDS = 1.0
"""How often a stream looks for news."""

SILENCE_SECONDS = 15.0
"""After which a comment is sent, so that no proxy takes the stream for dead."""


def add_watching(app: FastAPI, studies: Studies) -> None:
    """The routes of an application for those who look on."""

    @app.get("/v1/studies/{study}/events", tags=["study"], response_class=StreamingResponse)
    async def events(study: StudyName) -> StreamingResponse:
        """Server-sent events: `trial`, each time that one changes, all of them first; `done`, at the end."""
        async with studies.of(study) as served:
            first = await run_in_threadpool(_look, served)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(studies, study, first), media_type="text/event-stream", headers=headers)

    @app.get("/metrics", tags=["service"])
    def metrics() -> Response:
        """For Prometheus: answers, trials of each study by state, and this process."""
        return Response("\n".join([*_metrics(app, studies), ""]), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _stream(studies: Studies, study: str, live: list[LiveTrial]) -> AsyncIterator[str]:
    seen: dict[int, LiveTrial] = {}
    silent = 0.0
    while True:
        changed = [trial for trial in live if seen.get(trial.trial) != trial]
        for trial in changed:
            yield f"event: trial\ndata: {json.dumps(finite(trial.describe()))}\n\n"
        seen = {trial.trial: trial for trial in live}
        silent = 0.0 if changed else silent + LOOK_SECONDS
        async with studies.of(study) as served:
            if done := served.session.done:
                yield f"event: done\ndata: {json.dumps({'done': done})}\n\n"
                return
        if silent >= SILENCE_SECONDS:
            silent = 0.0
            yield ": nothing new\n\n"
        await asyncio.sleep(LOOK_SECONDS)
        async with studies.of(study) as served:
            live = await run_in_threadpool(_look, served)


def _look(served: Served) -> list[LiveTrial]:
    ledger = served.session.ledger
    return ledger.transactions.again(lambda: live_trials(ledger.study, served.records))


def _metrics(app: FastAPI, studies: Studies) -> Iterator[str]:
    yield "# HELP batchopt_http_answers_total Answers, by method and status."
    yield "# TYPE batchopt_http_answers_total counter"
    for (method, status), count in sorted(app.state.answers.items()):
        yield f"batchopt_http_answers_total{_labels(method=method, status=status)} {count}"
    yield "# HELP batchopt_trials Trials of a study, by state."
    yield "# TYPE batchopt_trials gauge"
    try:
        found = list_studies(studies.storage)
    except StorageNotFound:
        found = []
    for study in found:
        for state, count in sorted(study["trials"].items()):
            yield f"batchopt_trials{_labels(study=study['study'], state=state)} {count}"
    yield "# HELP batchopt_open_studies Studies that this process has open."
    yield "# TYPE batchopt_open_studies gauge"
    yield f"batchopt_open_studies {len(studies.open())}"
    process = psutil.Process()
    yield "# HELP process_resident_memory_bytes Resident memory size in bytes."
    yield "# TYPE process_resident_memory_bytes gauge"
    yield f"process_resident_memory_bytes {process.memory_info().rss}"
    yield "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds."
    yield "# TYPE process_cpu_seconds_total counter"
    yield f"process_cpu_seconds_total {sum(process.cpu_times()[:2]):.2f}"


def _labels(**labels: Any) -> str:
    escaped = {
        name: str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
