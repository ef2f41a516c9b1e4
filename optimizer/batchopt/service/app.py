"""The service: a study's session over HTTP. Nothing a job is told lives in this process alone.

An error is `{"error": "..."}` with a status that says whose it is: 422 for what was said, 428 where the lease was left
out, 401 and 403 for who said it, 404 and 409 for the study, 410 once it is done, 412 for a lease that is lost, 413 for
a body that is too large, 503 for the database.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from batchopt.search.steps import Step
from batchopt.service.answers import answer_errors, json_answer
from batchopt.service.dashboard import add_dashboard
from batchopt.service.guard import Guard, Keys
from batchopt.service.naming import TRIAL, Lease, StudyName, TrialNumber, given
from batchopt.service.pages import add_pages
from batchopt.service.reading import add_reading, recommendation_of
from batchopt.service.schemas import Ask, Completion, EpochTold, Question, Reason
from batchopt.service.states import add_states
from batchopt.service.studies import Served, Studies
from batchopt.service.watching import add_watching
from batchopt.store.leases import LeaseLost, TurnLost
from batchopt.study.jobs import Asking, Work
from batchopt.study.telling import Telling

RETRY_SECONDS = 1
"""After which a job asks again where there is nothing for it now."""


def make_app(storage: str, keys: Keys) -> FastAPI:
    """The application.

    Args:
        storage: of the studies, a path or an SQLAlchemy URL.
        keys: who may come in.
    """
    studies = Studies(storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(studies.close)

    app = FastAPI(
        title="batchopt",
        summary="Which batch size, and which learning rate with it: studies for jobs in any framework.",
        version=metadata.version("batchopt"),
        lifespan=lifespan,
    )
    app.state.answers = Counter()
    app.add_middleware(Guard, keys=keys)
    answer_errors(app)
    _add_studies(app, studies)
    _add_trials(app, studies)
    add_states(app, studies)
    add_reading(app, studies)
    add_watching(app, studies)
    add_pages(app, studies)
    add_dashboard(app, storage)
    return app


def _add_studies(app: FastAPI, studies: Studies) -> None:
    @app.put("/v1/studies/{study}", tags=["study"])
    def put_study(study: StudyName, question: Question, response: Response) -> dict[str, Any]:
        """Make a study; nothing happens where it is there and asks the same."""
        new = studies.put(study, question)
        response.status_code = 201 if new else 200
        return {"study": study, "new": new}

    @app.post("/v1/studies/{study}/trials:ask", responses={204: {}, 410: {}}, tags=["trial"])
    async def ask(study: StudyName, asking: Ask) -> Response:
        """What to train next: the job's own open trial, or a new step; 204 for nothing now, 410 once all is done."""
        wanted = Asking(asking.client_id, asking.machine, can_pause=asking.can_pause, largest=asking.largest_batch_size)
        async with studies.of(study) as served:
            try:
                # A client that goes away takes nothing from those who wait with it.
                work = await asyncio.shield(asyncio.wrap_future(served.ask(wanted)))
            except TurnLost:
                work = None
            if work is not None:
                return JSONResponse(_described(work, served))
            if done := served.session.done:
                await run_in_threadpool(served.session.end)
                advised = await run_in_threadpool(recommendation_of, studies.storage, study)
                return json_answer({"done": done, "recommendation": advised}, 410)
            return Response(status_code=204, headers={"Retry-After": str(RETRY_SECONDS)})


def _add_trials(app: FastAPI, studies: Studies) -> None:
    async def told(study: str, trial: int, lease: str, epoch: EpochTold) -> dict[str, Any]:
        async with studies.of(study) as served:
            session = served.session
            examples = session.stamp.program.train_examples
            answer = session.telling.tell(trial, lease, lambda size: epoch.figures(size, examples))
            return {"verdict": await asyncio.shield(asyncio.wrap_future(answer)), **_expiry(served)}

    async def ended(study: str, trial: int, lease: str, end: Callable[[Telling], None]) -> dict[str, Any]:
        def once() -> str:
            telling = served.session.telling
            try:
                end(telling)
            except LeaseLost:
                if telling.ended_by(trial, lease) is None:
                    raise
            found = telling.ended_by(trial, lease)
            return "running" if found is None else found.state.name.lower()

        async with studies.of(study) as served:
            return {"state": await run_in_threadpool(once)}

    @app.post(f"{TRIAL}/epochs", tags=["trial"])
    async def tell(study: StudyName, trial: TrialNumber, said: EpochTold, if_match: Lease = None) -> dict[str, Any]:
        """Keep an epoch, once however often it is told; renews the lease. The verdict: continue, pause or stop."""
        return await told(study, trial, given(if_match), said)

    @app.post(f"{TRIAL}:renew", tags=["trial"])
    async def renew(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """Keep the lease; to be said several times in its seconds."""
        lease = given(if_match)
        async with studies.of(study) as served:
            await run_in_threadpool(served.session.telling.renew, trial, lease)
            return _expiry(served)

    @app.post(f"{TRIAL}:release", tags=["trial"])
    async def release(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """Let a trial go as it is, for whoever asks next."""
        lease = given(if_match)
        async with studies.of(study) as served:
            await run_in_threadpool(served.session.telling.let_go, trial, lease)
        return {"state": "released"}

    @app.post(f"{TRIAL}:complete", tags=["trial"])
    async def complete(
        study: StudyName, trial: TrialNumber, said: Completion | None = None, if_match: Lease = None
    ) -> dict[str, Any]:
        """Training has ended by itself: the last epoch that was told counts, or `value`, as that of the last epoch."""
        lease = given(if_match)
        if said is None or said.value is None:
            return await ended(study, trial, lease, lambda telling: telling.complete(trial, lease))
        async with studies.of(study) as served:
            session = served.session
            last = session.ending.last_epoch
            figures = EpochTold(epoch=last, value=said.value, seconds=said.seconds, energy_joules=said.energy_joules)
            examples = session.stamp.program.train_examples
            answer = session.telling.tell(trial, lease, lambda size: figures.figures(size, examples), alone=True)
            await asyncio.shield(asyncio.wrap_future(answer))
            return await ended(study, trial, lease, lambda telling: None)

    @app.post(f"{TRIAL}:out-of-memory", tags=["trial"])
    async def out_of_memory(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """The trial did not fit in memory: its machine is given no batch size as large again."""
        lease = given(if_match)
        return await ended(study, trial, lease, lambda telling: telling.exceed_memory(trial, lease))

    @app.post(f"{TRIAL}:diverged", tags=["trial"])
    async def diverged(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> dict[str, Any]:
        """The loss is not finite: evidence against the trial's corner."""
        lease = given(if_match)
        return await ended(study, trial, lease, lambda telling: telling.diverge(trial, lease))

    @app.post(f"{TRIAL}:fail", tags=["trial"])
    async def fail(study: StudyName, trial: TrialNumber, said: Reason, if_match: Lease = None) -> dict[str, Any]:
        """The trial cannot be trained, for a reason that is not the search's."""
        lease = given(if_match)
        return await ended(study, trial, lease, lambda telling: telling.fail(trial, lease, said.why))


def _described(work: Work, served: Served) -> dict[str, Any]:
    step: Step = work.step
    return {
        "trial": step.trial,
        "batch_size": step.batch_size,
        "learning_rate": step.learning_rate,
        "extra": dict(step.extra),
        "metric": served.session.stamp.metric.name,
        "from_epoch": work.from_epoch,
        "until_epoch": step.until_epoch,
        "lease": work.lease,
        "reason": step.reason,
        **_expiry(served),
    }


def _expiry(served: Served) -> dict[str, Any]:
    """When the lease ends: in seconds, which no clock that jumps can spoil, and by this server's clock."""
    return {"lease_seconds": served.lease_seconds, "expires_at": time.time() + served.lease_seconds}
