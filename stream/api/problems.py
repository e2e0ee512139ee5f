"""Errors as problem details (RFC 9457, `application/problem+json`), whoever raised them."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from stream.errors import IncompatibleState, ServiceUnavailable, SurgecastError

MEDIA_TYPE = "application/problem+json"


class ProblemDetails(BaseModel):
    """What went wrong: `type` is stable and for machines, `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Problem(HTTPException):
    """An answer that is an error. `kind` becomes the `type`."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind = kind


def unknown_series(series_id: str) -> Problem:
    """No series of that id has been seen."""
    return Problem(404, "unknown-series", f"no series {series_id!r}; GET /v1/series lists them")


def no_forecast(series_id: str) -> Problem:
    """The series exists, and has no forecast before its next bucket closes."""
    return Problem(
        404, "no-forecast-yet", f"{series_id!r} gets its first forecast when a bucket closes"
    )


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        kind = getattr(error, "kind", HTTPStatus(error.status_code).phrase.lower())
        return _answer(request, error.status_code, kind, str(error.detail), error.headers)

    async def of_validation(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        return _answer(request, 422, "invalid-request", f"{where}: {first['msg']}")

    async def of_ours(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ServiceUnavailable):
            return _answer(request, 503, "store-unavailable", str(error), {"Retry-After": "1"})
        kind = "incompatible-store" if isinstance(error, IncompatibleState) else "failed"
        return _answer(request, 500, kind, str(error))

    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(SurgecastError, of_ours)


def _answer(
    request: Request, status: int, kind: str, detail: str, headers: Any = None
) -> JSONResponse:
    problem = ProblemDetails(
        type=f"urn:surgecast:problem:{kind.replace(' ', '-')}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
    )
    return JSONResponse(problem.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)
