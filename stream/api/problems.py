"""Turns every error into problem details (RFC 9457, `application/problem+json`)."""

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
    """An error: `type` is a stable identifier, `detail` is text for people."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Problem(HTTPException):
    """An HTTP error; `kind` becomes the `type` of its problem details."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind = kind


def unknown_series(series_id: str) -> Problem:
    """404 for a series id without events."""
    return Problem(
        404, "unknown-series", f"unknown series {series_id!r}; GET /v1/series lists all series"
    )


def no_forecast(series_id: str) -> Problem:
    """404 for a series that gets its first forecast when its next bucket closes."""
    return Problem(
        404, "no-forecast-yet", f"series {series_id!r} has no forecast until its next bucket closes"
    )


def install(app: FastAPI) -> None:
    """Register the error handlers on the application."""

    async def from_http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        kind = getattr(error, "kind", HTTPStatus(error.status_code).phrase.lower())
        return _response(request, error.status_code, kind, str(error.detail), error.headers)

    async def from_validation(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        return _response(request, 422, "invalid-request", f"{place}: {first['msg']}")

    async def from_surgecast(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ServiceUnavailable):
            return _response(request, 503, "store-unavailable", str(error), {"Retry-After": "1"})
        kind = "incompatible-store" if isinstance(error, IncompatibleState) else "failed"
        return _response(request, 500, kind, str(error))

    app.add_exception_handler(HTTPException, from_http)
    app.add_exception_handler(RequestValidationError, from_validation)
    app.add_exception_handler(SurgecastError, from_surgecast)


def _response(
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
