"""What the routes name: a study, a trial, and the lease by which a job holds it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, HTTPException, Path

TRIAL = "/v1/studies/{study}/trials/{trial}"

StudyName = Annotated[str, Path(min_length=1, max_length=512)]
TrialNumber = Annotated[int, Path(ge=0, le=2**31 - 1)]
Lease = Annotated[str | None, Header(alias="If-Match", max_length=200)]


def given(if_match: str | None) -> str:
    """A lease that was shown; refused where none was."""
    if not if_match:
        raise HTTPException(428, "say which lease this is for: the header If-Match, with the `lease` that :ask gave.")
    return if_match.strip().strip('"')
