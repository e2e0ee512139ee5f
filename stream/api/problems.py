"""Turns every error into problem details (RFC 9457, `application/problem+json`)."""

from collections.abc import Mapping
from http import HTTPStatus

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


def problem_response(
    path: str, problem: HTTPException, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return the answer to a request for `path`; `headers` replace the problem's own."""
    kind = getattr(problem, "kind", HTTPStatus(problem.status_code).phrase.lower())
    details = ProblemDetails(
        type=f"urn:surgecast:problem:{kind.replace(' ', '-')}",
        title=HTTPStatus(problem.status_code).phrase,
        status=problem.status_code,
        detail=_encodable(str(problem.detail)),
        instance=_encodable(path),
    )
    return JSONResponse(
        details.model_dump(),
        problem.status_code,
        headers=problem.headers if headers is None else headers,
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Register the error handlers on the application."""

    async def from_http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        return problem_response(request.url.path, error)

    async def from_validation(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        problem = Problem(422, "invalid-request", f"{place}: {first['msg']}")
        return problem_response(request.url.path, problem)

    async def from_surgecast(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ServiceUnavailable):
            problem = Problem(503, "store-unavailable", str(error), {"Retry-After": "1"})
        else:
            kind = "incompatible-store" if isinstance(error, IncompatibleState) else "failed"
            problem = Problem(500, kind, str(error))
        return problem_response(request.url.path, problem)

    async def from_any(request: Request, error: Exception) -> JSONResponse:
        problem = Problem(500, "failed", "an error of the server; its log has the details")
        return problem_response(request.url.path, problem)

    app.add_exception_handler(HTTPException, from_http)
    app.add_exception_handler(RequestValidationError, from_validation)
    app.add_exception_handler(SurgecastError, from_surgecast)
    app.add_exception_handler(Exception, from_any)


def _encodable(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 cannot encode, escaped.

    >>> _encodable("a" + chr(0xD800)) == "a" + chr(92) + "ud800"
    True
    """
    return text.encode("utf-8", "backslashreplace").decode()
