"""The service: a study's session over HTTP. Nothing a job is told lives in this process alone."""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException

from batchopt.errors import BatchoptError, InvalidInput, StorageError, StorageNotFound, StudyMismatch
from batchopt.report.answer.reading import list_studies, read_evidence, read_study
from batchopt.search.steps import Step
from batchopt.service.auth import Door
from batchopt.service.limits import LimitedBodies
from batchopt.service.schemas import Asking, Completion, EpochTold, Question, Reason
from batchopt.service.studies import Studies
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.jobs import JobSession, Work
from batchopt.words import finite

ASKING_PATIENCE_S = 5.0
"""How long a job's request waits for its turn at asking before it is told to come again."""

RETRY_SECONDS = 1
"""After which a job asks again where there is nothing for it now."""

StudyName = Annotated[str, Path(min_length=1, max_length=512)]
TrialNumber = Annotated[int, Path(ge=0, le=2**31 - 1)]
Epoch = Annotated[int, Query(ge=1, le=1_000_000)]
Sum = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]
Lease = Annotated[str | None, Header(alias="If-Match", max_length=200)]


def make_app(storage: str, door: Door) -> FastAPI:
    """The application.

    Args:
        storage: of the studies, a path or an SQLAlchemy URL.
        door: who may come in.
    """
    studies = Studies(storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studies.close()

    app = FastAPI(title="batchopt", lifespan=lifespan, dependencies=[Depends(door.check)])
    app.add_middleware(LimitedBodies)
    _say_errors(app)

    @app.get("/healthz")
    def health() -> dict[str, str]:
        """Whether it answers, and its database does."""
        # The first study makes it.
        with suppress(StorageNotFound):
            list_studies(storage)
        return {"status": "ok"}

    @app.put("/v1/studies/{study}")
    def put_study(study: StudyName, question: Question, response: Response) -> dict[str, Any]:
        """Make a study; nothing happens where it is there and asks the same."""
        new = studies.put(study, question)
        response.status_code = 201 if new else 200
        return {"study": study, "new": new}

    @app.post("/v1/studies/{study}/trials:ask", responses={204: {}, 410: {}})
    def ask(study: StudyName, asking: Asking) -> Response:
        """The next step for a client; its open one where it has one."""
        session = studies.session(study, asking.largest_batch_size)
        try:
            work = session.ask_for(
                asking.client_id, asking.machine, can_pause=asking.can_pause, patience=ASKING_PATIENCE_S
            )
        except TurnLost:
            work = None
        if work is not None:
            return JSONResponse(_described(work, session))
        if done := session.done:
            session.end()
            return _answer({"done": done, "recommendation": _recommendation(storage, study)}, 410)
        return Response(status_code=204, headers={"Retry-After": str(RETRY_SECONDS)})

    @app.post("/v1/studies/{study}/trials/{trial}/epochs")
    def tell(study: StudyName, trial: TrialNumber, told: EpochTold, if_match: Lease = None) -> dict[str, Any]:
        """Keep an epoch; as often as it is told, once."""
        session = studies.session(study)
        examples = session.stamp.program.train_examples
        verdict = session.tell_for(trial, _lease(if_match), lambda step: told.figures(step, examples))
        return {"verdict": verdict, **_expiry(session)}

    @app.post("/v1/studies/{study}/trials/{trial}:renew")
    def renew(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """Keep the lease."""
        session = studies.session(study)
        with session.held_by(trial, _lease(if_match)):
            pass
        return _expiry(session)

    @app.post("/v1/studies/{study}/trials/{trial}:release")
    def release(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """Let a trial go, for whoever asks next."""
        session = studies.session(study)
        with session.held_by(trial, _lease(if_match)):
            session.let_go(trial)
        return {"state": "released"}

    @app.post("/v1/studies/{study}/trials/{trial}:complete")
    def complete(
        study: StudyName, trial: TrialNumber, said: Completion | None = None, if_match: Lease = None
    ) -> dict[str, Any]:
        """The job is done with a trial: all its epochs were told, or this is the value of the last one."""
        session, lease = studies.session(study), _lease(if_match)
        if (state := session.ended_by(trial, lease)) is not None:
            return {"state": state}
        if said is None or said.value is None:
            with session.held_by(trial, lease):
                raise InvalidInput(
                    f"trial {trial} has epochs left. Tell them, give `value` as the last one's, or :release it."
                )
        last = EpochTold(epoch=session.ending.last_epoch, value=said.value, seconds=said.seconds)
        session.tell_for(trial, lease, lambda step: last.figures(step, session.stamp.program.train_examples))
        return {"state": session.ended_by(trial, lease) or "running"}

    @app.post("/v1/studies/{study}/trials/{trial}:out-of-memory")
    def out_of_memory(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """The trial did not fit in memory: no larger batch size is proposed."""
        with _ending(studies.session(study), trial, _lease(if_match)) as session:
            if session is not None:
                session.out_of_memory(trial)
        return {"state": "pruned"}

    @app.post("/v1/studies/{study}/trials/{trial}:diverged")
    def diverged(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """The loss is not finite."""
        with _ending(studies.session(study), trial, _lease(if_match)) as session:
            if session is not None:
                session.diverge(trial)
        return {"state": "pruned"}

    @app.post("/v1/studies/{study}/trials/{trial}:fail")
    def fail(study: StudyName, trial: TrialNumber, said: Reason, if_match: Lease = None) -> dict[str, Any]:
        """The trial cannot be trained, for a reason that is not the search's."""
        with _ending(studies.session(study), trial, _lease(if_match)) as session:
            if session is not None:
                session.fail(trial, said.why)
        return {"state": "fail"}

    @app.put("/v1/studies/{study}/trials/{trial}/checkpoint")
    async def put_checkpoint(
        study: StudyName, trial: TrialNumber, request: Request, epoch: Epoch, sha256: Sum, if_match: Lease = None
    ) -> dict[str, Any]:
        """Keep the state of a trial after an epoch, bytes of the job's own; nothing of a body that was cut."""
        content, lease = await request.body(), _lease(if_match)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InvalidInput(
                "the bytes that came have another SHA-256 than `sha256`: they were cut or changed. Retry."
            )

        def keep() -> None:
            studies.session(study).keep_for(trial, lease, epoch, content)

        await run_in_threadpool(keep)
        return {"epoch": epoch, "bytes": len(content)}

    @app.get("/v1/studies/{study}/trials/{trial}/checkpoint", responses={204: {}})
    def get_checkpoint(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> Response:
        """The state that a trial goes on from, for who holds it; 204 where it begins anew."""
        epoch, content = studies.session(study).state_for(trial, _lease(if_match))
        if content is None:
            return Response(status_code=204)
        sums = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Batchopt-Epoch": str(epoch)}
        return Response(content, headers=sums, media_type="application/octet-stream")

    @app.get("/v1/studies/{study}/recommendation")
    def recommendation(study: StudyName) -> Response:
        """What to use, as far as is known; null before the first complete trial."""
        return _answer({"recommendation": _recommendation(storage, study)})

    @app.get("/v1/studies/{study}/report")
    def report(study: StudyName) -> Response:
        """All that the study has found."""
        return _answer(read_evidence(storage, study).report.describe())

    @app.get("/v1/studies/{study}/report.html", response_class=HTMLResponse)
    def report_page(study: StudyName) -> HTMLResponse:
        """The report with its pictures, as one page."""
        from batchopt.report.show.page import page

        return HTMLResponse(page(read_evidence(storage, study)))

    @app.get("/v1/studies/{study}/trials")
    def trials(study: StudyName) -> Response:
        """Every trial with its epochs."""
        return _answer([trial.describe() for trial in read_study(storage, study)])

    @app.get("/v1/studies/{study}/trials.csv")
    def trials_csv(study: StudyName) -> Response:
        """The same as rows, one for each epoch."""
        rows = [row for trial in read_study(storage, study) for row in trial.rows()]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
        return Response(text.getvalue(), media_type="text/csv")

    return app


@contextmanager
def _ending(session: JobSession, trial: int, lease: str) -> Iterator[JobSession | None]:
    """A trial held to be ended; None where this lease has ended it before."""
    if session.ended_by(trial, lease) is not None:
        yield None
        return
    with session.held_by(trial, lease):
        yield session


def _described(work: Work, session: JobSession) -> dict[str, Any]:
    step: Step = work.step
    return {
        "trial": step.trial,
        "batch_size": step.batch_size,
        "learning_rate": step.learning_rate,
        "extra": dict(step.extra),
        "from_epoch": work.from_epoch,
        "until_epoch": step.until_epoch,
        "lease": work.lease,
        "reason": step.reason,
        **_expiry(session),
    }


def _expiry(session: JobSession) -> dict[str, Any]:
    """When the lease ends: in seconds, which no clock that jumps can spoil, and by this server's clock."""
    seconds = session.ledger.records.lease_seconds
    return {"lease_seconds": seconds, "expires_at": time.time() + seconds}


def _recommendation(storage: str, study: str) -> Any:
    return read_evidence(storage, study).report.describe().get("recommendation")


def _lease(if_match: str | None) -> str:
    if not if_match:
        raise HTTPException(428, "say which lease this is for: the header If-Match, with the `lease` that :ask gave.")
    return if_match.strip().strip('"')


def _answer(document: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(finite(document), status)


def _say_errors(app: FastAPI) -> None:
    """Whatever a client can mend is one line of JSON, with the status that says what kind of thing it is."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input: it may be a megabyte, or no number that JSON has.
        found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"error": "; ".join(found[:5])}, 422)

    @app.exception_handler(AnyHTTPException)
    def refused(request: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(LeaseLost)
    def lost(request: Request, error: LeaseLost) -> JSONResponse:
        text = f"{error}, or this is not its lease; nothing was written. Stop training it and :ask for another."
        return JSONResponse({"error": text}, 412)

    @app.exception_handler(BatchoptError)
    def mendable(request: Request, error: BatchoptError) -> JSONResponse:
        headers = {"Retry-After": "5"} if _status(error) == 503 else None
        return JSONResponse({"error": str(error)}, _status(error), headers=headers)


def _status(error: BatchoptError) -> int:
    if isinstance(error, InvalidInput):
        return 422
    if isinstance(error, StudyMismatch):
        return 409
    if isinstance(error, StorageNotFound):
        return 404
    return 503 if isinstance(error, StorageError) else 500
