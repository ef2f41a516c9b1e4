"""The service as a FastAPI application: its routes, and how everything that can go wrong is answered in one line.

An error is `{"error": "..."}` with a status that says whose it is: 400 and 422 for what was said, 401 and 403 for who
said it, 404 and 409 for the study, 410 once it is done, 412 for a lease that was lost, 413 for a body that is too
large, 503 for the database.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib import metadata
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from batchopt.errors import BatchoptError, StorageBusy, StorageError, StorageNotFound, StudyMismatch
from batchopt.question.options import Options
from batchopt.report.answer.reading import read_report, read_study
from batchopt.service.guard import Guard, Keys
from batchopt.service.schemas import STUDY_NAME, Ask, EpochSaid, Failure, Held, Question
from batchopt.service.studies import Differs, Done, Studies
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.clients import NothingTrained, OutOfOrder
from batchopt.text import finite, first_line

Name = Annotated[str, Path(pattern=STUDY_NAME)]
Number = Annotated[int, Path(ge=0, le=2**31 - 1)]

TRIAL = "/v1/studies/{study}/trials/{trial}"

ASKING = 8
"""How many jobs are being given a step at the same time, of one study one after the other."""

RETRY_S = 1
"""When a job for which there is nothing now is to ask again."""

LONGEST_ERROR = 500

log = logging.getLogger("batchopt.service")


def create_app(storage: str, keys: Keys, options: Options | None = None) -> FastAPI:
    """The service over one database.

    Args:
        storage: a path or an SQLAlchemy URL.
        keys: who may speak to it.
        options: whose lease counts, and where checkpoints are.
    """
    studies = Studies(storage, options or Options())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studies.release()

    app = FastAPI(
        title="batchopt",
        summary="Which batch size, and which learning rate with it: studies for jobs in any framework.",
        version=metadata.version("batchopt"),
        lifespan=lifespan,
    )
    app.add_middleware(Guard, keys=keys)
    _answer_errors(app)
    _add_questions(app, studies)
    _add_trials(app, studies)
    _add_reading(app, studies)
    return app


def _add_questions(app: FastAPI, studies: Studies) -> None:
    @app.get("/healthz", tags=["service"])
    def health() -> dict[str, str]:
        """Whether the service answers."""
        return {"status": "ok", "version": app.version}

    @app.put("/v1/studies/{study}", tags=["study"])
    def put_study(study: Name, question: Question) -> Response:
        """Make a study; where it is there and asks the same, nothing changes."""
        made = studies.put(study, question)
        return _json({"study": study, "made": made, "question": question.model_dump()}, 201 if made else 200)

    # Those who ask wait for each other, on threads of their own: else they would take all that others report on.
    asking = CapacityLimiter(ASKING)

    @app.post("/v1/studies/{study}/trials:ask", tags=["trial"])
    async def ask(study: Name, asked: Ask) -> Response:
        """What to train next: the job's own open trial, or a new step; 204 for nothing now, 410 once all is done."""
        return await to_thread.run_sync(answer_to, study, asked, limiter=asking)

    def answer_to(study: str, asked: Ask) -> Response:
        try:
            given = studies.of(study, lambda served: served.ask(asked))
        except (TurnLost, LeaseLost):
            given = None
        if given is None:
            return Response(status_code=204, headers={"Retry-After": str(RETRY_S)})
        if isinstance(given, Done):
            report = studies.of(study, lambda served: served.report())
            best = None if report.recommendation is None else asdict(report.recommendation)
            return _json({"done": given.reason, "recommendation": best}, 410)
        step = given.step
        return _json(
            {
                "trial": step.trial,
                "batch_size": step.batch_size,
                "learning_rate": step.learning_rate,
                "extra": dict(step.extra),
                "from_epoch": step.from_epoch,
                "until_epoch": step.until_epoch,
                "reason": step.reason,
                "lease": given.lease,
                "lease_seconds": given.seconds,
                "expires_at": time.time() + given.seconds,
            }
        )


def _add_trials(app: FastAPI, studies: Studies) -> None:
    @app.post(f"{TRIAL}/epochs", tags=["trial"])
    def epochs(study: Name, trial: Number, said: EpochSaid) -> Response:
        """Keep an epoch, once however often it is said; renews the lease."""
        verdict, seconds = studies.of(study, lambda served: (served.hear(trial, said), served.lease_seconds))
        return _json({"verdict": verdict, "expires_at": time.time() + seconds})

    @app.post(f"{TRIAL}:renew", tags=["trial"])
    def renew(study: Name, trial: Number, held: Held) -> Response:
        """Keep the trial; to be said several times in the seconds of a lease."""
        seconds = studies.of(study, lambda served: served.renew(trial, held.lease))
        return _json({"expires_at": time.time() + seconds})

    @app.post(f"{TRIAL}:release", tags=["trial"])
    def release(study: Name, trial: Number, held: Held) -> Response:
        """Let the trial go as it is: whoever asks next takes it up."""
        studies.of(study, lambda served: served.let_go(trial, held.lease))
        return _json({"state": "running"})

    @app.post(f"{TRIAL}:complete", tags=["trial"])
    def complete(study: Name, trial: Number, held: Held) -> Response:
        """Training has ended by itself: the last epoch that was told is what the trial comes to."""
        studies.of(study, lambda served: served.complete(trial, held.lease))
        return _json({"state": "complete"})

    @app.post(f"{TRIAL}:out-of-memory", tags=["trial"])
    def out_of_memory(study: Name, trial: Number, held: Held) -> Response:
        """The trial does not fit: neither its batch size nor any larger one is proposed again."""
        studies.of(study, lambda served: served.end(trial, held.lease, "out of memory"))
        return _json({"state": "pruned"})

    @app.post(f"{TRIAL}:diverged", tags=["trial"])
    def diverged(study: Name, trial: Number, held: Held) -> Response:
        """The loss is not finite: evidence against the trial's corner."""
        studies.of(study, lambda served: served.end(trial, held.lease, "diverged"))
        return _json({"state": "pruned"})

    @app.post(f"{TRIAL}:fail", tags=["trial"])
    def fail(study: Name, trial: Number, said: Failure) -> Response:
        """The trial cannot be trained, for a reason that is not the search's."""
        studies.of(study, lambda served: served.end(trial, said.lease, "failed", said.why))
        return _json({"state": "fail"})


def _add_reading(app: FastAPI, studies: Studies) -> None:
    @app.get("/v1/studies/{study}/recommendation", tags=["study"])
    def recommendation(study: Name) -> Response:
        """What the study advises so far; null before the first value."""
        best = read_report(studies.storage, study).recommendation
        return _json({"recommendation": None if best is None else asdict(best)})

    @app.get("/v1/studies/{study}/report", tags=["study"])
    def report(study: Name) -> Response:
        """All that the study has found."""
        return _json(read_report(studies.storage, study).describe())

    @app.get("/v1/studies/{study}/trials", tags=["study"])
    def trials(study: Name) -> Response:
        """The study's trials, every epoch included."""
        return _json({"trials": [trial.describe() for trial in read_study(studies.storage, study)]})


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def misspoken(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(400, f"{where}: {first['msg']}" if where else str(first["msg"]))

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(LeaseLost)
    def late(request: Request, error: LeaseLost) -> Response:
        return _error(412, f"trial {error.trial} is not this lease's any more; nothing was written. Ask for another.")

    @app.exception_handler(OutOfOrder)
    def early(request: Request, error: OutOfOrder) -> Response:
        return _error(409, f"{error}; tell that one first.", expected=error.expected)

    @app.exception_handler(NothingTrained)
    def empty(request: Request, error: NothingTrained) -> Response:
        return _error(409, f"{error}; tell one before it is complete, or let it fail.")

    @app.exception_handler(BatchoptError)
    def in_a_line(request: Request, error: BatchoptError) -> Response:
        if isinstance(error, Differs):
            return _error(409, str(error), differs=error.differs)
        if isinstance(error, StorageNotFound):
            return _error(404, str(error))
        if isinstance(error, StorageError):
            log.error("%s", first_line(error))
            return _error(503, str(error), headers={"Retry-After": "5"} if isinstance(error, StorageBusy) else None)
        return _error(409 if isinstance(error, StudyMismatch) else 400, str(error))

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> Response:
        return _error(500, f"the server failed ({type(error).__name__}); its log says more.")


def _error(status: int, text: str, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
    return _json({"error": first_line(text)[:LONGEST_ERROR], **more}, status, headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(finite(content), status, headers)
