"""Trials' states over HTTP: bytes of the jobs' own, or, where these are many, the address at which a job keeps them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from batchopt.service.answers import json_answer
from batchopt.service.naming import TRIAL, Lease, StudyName, TrialNumber, given
from batchopt.service.studies import Studies

ADDRESS = b"batchopt:checkpoint-uri\n"
"""What the state of a trial begins with that is elsewhere; no other one may."""

Epoch = Annotated[int, Query(ge=1, le=1_000_000)]
Sum = Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")]
Uri = Annotated[str | None, Query(max_length=2048, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$")]


def add_states(app: FastAPI, studies: Studies) -> None:
    """The routes of trials' states."""

    @app.put(f"{TRIAL}/checkpoint", tags=["checkpoint"])
    async def put_checkpoint(
        study: StudyName,
        trial: TrialNumber,
        request: Request,
        epoch: Epoch,
        sha256: Sum = None,
        uri: Uri = None,
        if_match: Lease = None,
    ) -> dict[str, Any]:
        """Keep the state of a trial after an epoch; nothing of a body that was cut.

        Either bytes of the job's own with their SHA-256; or, of a larger one, the `uri` at which whoever goes on finds
        it. The service does not open that, and a job that does trusts those that have the study's token.
        """
        lease, digest, content = given(if_match), hashlib.sha256(), bytearray()
        async for chunk in request.stream():
            digest.update(chunk)
            content += chunk
        if uri is not None:
            if content or sha256 is not None:
                raise HTTPException(422, "uri: the state is there or in the body. Leave one of them out.")
            content += ADDRESS + uri.encode()
        elif sha256 is None:
            raise HTTPException(422, "sha256: give that of the body, or the `uri` of a state that is elsewhere.")
        elif digest.hexdigest() != sha256:
            raise HTTPException(
                422, "the bytes that came have another SHA-256 than `sha256`: they were cut or changed. Retry."
            )
        elif content.startswith(ADDRESS):
            raise HTTPException(422, "no state begins so. Give an address as `uri`.")
        async with studies.of(study) as served:
            await run_in_threadpool(served.session.telling.keep_state, trial, lease, epoch, bytes(content))
        return {"epoch": epoch, "bytes": 0 if uri else len(content), "uri": uri}

    @app.get(f"{TRIAL}/checkpoint", responses={204: {}}, tags=["checkpoint"])
    async def get_checkpoint(study: StudyName, trial: TrialNumber, if_match: Lease = None) -> Response:
        """The state that a trial goes on from, for who holds it: its bytes, or JSON with its `uri`; 204 for none."""
        lease = given(if_match)
        async with studies.of(study) as served:
            kept = await run_in_threadpool(served.session.telling.state, trial, lease)
        if kept is None:
            return Response(status_code=204)
        epoch, content = kept
        after = {"Batchopt-Epoch": str(epoch)}
        if content.startswith(ADDRESS):
            return json_answer({"epoch": epoch, "uri": content[len(ADDRESS) :].decode()}, headers=after)
        sums = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', **after}
        return Response(content, headers=sums, media_type="application/octet-stream")
