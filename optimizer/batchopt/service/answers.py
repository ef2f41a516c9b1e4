"""How the service answers: JSON, and each error as a status and a line."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from batchopt.errors import BatchoptError, InvalidInput, StorageError, StorageNotFound, StudyMismatch
from batchopt.store.leases import LeaseLost
from batchopt.text import first_line
from batchopt.words import finite

LONGEST_ERROR = 500

log = logging.getLogger("batchopt.service")


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """Values as JSON, in which what is not finite is null."""
    return JSONResponse(finite(content), status, headers)


def answer_errors(app: FastAPI) -> None:
    """Whatever a client can mend is one line of JSON, with the status that says what kind of thing it is."""

    @app.exception_handler(RequestValidationError)
    def misspoken(request: Request, error: RequestValidationError) -> Response:
        # Without the input: it may be a megabyte, or no number that JSON has.
        found = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        return _error(422, "; ".join(found[:5]))

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(LeaseLost)
    def late(request: Request, error: LeaseLost) -> Response:
        return _error(
            412,
            f"trial {error.trial} is not this lease's any more: it was taken over, or has ended. Nothing was written. "
            "Stop training it and :ask for another.",
        )

    @app.exception_handler(BatchoptError)
    def mendable(request: Request, error: BatchoptError) -> Response:
        status = _status(error)
        if status >= 500:
            log.error("%s", first_line(error))
        return _error(status, str(error), headers={"Retry-After": "5"} if status == 503 else None)

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> Response:
        return _error(500, f"the server failed ({type(error).__name__}); its log says more.")


def _error(status: int, text: str, *, headers: dict[str, str] | None = None) -> Response:
    return json_answer({"error": first_line(text)[:LONGEST_ERROR]}, status, headers)


def _status(error: BatchoptError) -> int:
    if isinstance(error, InvalidInput):
        return 422
    if isinstance(error, StudyMismatch):
        return 409
    if isinstance(error, StorageNotFound):
        return 404
    return 503 if isinstance(error, StorageError) else 500
