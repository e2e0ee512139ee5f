"""`GET /v1/stream?series=…`: forecasts and open buckets as they change, as server-sent events.

Events: `forecast` (the body of `GET /v1/forecasts/{series_id}`) for a newer forecast, `bucket` (an
open bucket and its sums so far) when the sums change. The store is read four times a second; a
comment every 15 s keeps proxies from closing an idle connection.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from stream.api.forecasts import forecast_body
from stream.api.problems import Problem, unknown_series
from stream.api.shared_reader import SharedReader, age_fields
from stream.errors import ServiceUnavailable
from stream.features.derived import named_sums
from stream.readside.reader import Live

router = APIRouter(tags=["live"])

_EVERY_S: Final = 0.25
_IDLE_READS: Final = 60  # reads without a change before a keep-alive comment
_MAX_SERIES: Final = 100
_MAX_LISTENERS: Final = 200
_SERIES: Final = "series ids, repeated or separated by commas; an id that has a comma, repeated"


@router.get("/v1/stream", response_class=StreamingResponse)
async def stream_series(
    request: Request,
    series: Annotated[list[str], Query(description=_SERIES)],
) -> StreamingResponse:
    """Follow up to 100 series."""
    shared: SharedReader = request.app.state.reader
    listeners: set[object] = request.app.state.listeners
    if len(listeners) >= _MAX_LISTENERS:
        raise Problem(
            503,
            "too-many-listeners",
            f"the limit of {_MAX_LISTENERS} listeners is reached; try again later",
        )
    names = await run_in_threadpool(_named, shared, series)
    return StreamingResponse(
        _events(shared, names, listeners),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _named(shared: SharedReader, given: list[str]) -> list[str]:
    """Return the series ids of the request. Raises Problem for an unknown one, or too many."""
    with shared.reading() as reader:
        names = dict.fromkeys(
            name
            for part in given
            for name in ([part] if reader.find(part) else part.split(","))
            if name
        )
        if not 1 <= len(names) <= _MAX_SERIES:
            raise Problem(
                422, "invalid-request", f"{len(names)} series given; give 1 to {_MAX_SERIES}"
            )
        for name in names:
            if reader.find(name) is None:
                raise unknown_series(name)
    return list(names)


def _read(
    shared: SharedReader, names: list[str]
) -> tuple[dict[str, Live], dict[str, dict[str, Any]]]:
    with shared.reading() as reader:
        return reader.live(names), {name: age_fields(reader.age(name)) for name in names}


async def _events(
    shared: SharedReader, names: list[str], listeners: set[object]
) -> AsyncIterator[str]:
    listener = object()
    listeners.add(listener)
    sent: dict[tuple[str, str], Any] = {}
    idle = 0
    try:
        while True:
            try:
                changes = changed_events(sent, *await run_in_threadpool(_read, shared, names))
            except ServiceUnavailable as error:
                changes = [sse_event("unavailable", {"detail": str(error)})] if idle == 0 else []
            for text in changes:
                yield text
            idle = 0 if changes else idle + 1
            if idle >= _IDLE_READS:
                yield ": keep-alive\n\n"
                idle = 1
            await asyncio.sleep(_EVERY_S)
    finally:
        listeners.discard(listener)


def changed_events(
    sent: dict[tuple[str, str], Any],
    live: Mapping[str, Live],
    ages: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Return events for what differs from `sent`, and update `sent`."""
    events = []
    for name, (open_buckets, forecast) in live.items():
        if forecast is not None:
            version = (forecast.origin_ms, forecast.emitted_ms, forecast.model_id)
            if sent.get((name, "forecast")) != version:
                sent[name, "forecast"] = version
                events.append(sse_event("forecast", forecast_body(forecast).model_dump()))
        sums = [(bucket.start_ms, bucket.values_F.tolist()) for bucket in open_buckets]
        if sent.get((name, "bucket")) != sums:
            sent[name, "bucket"] = sums
            events += [
                sse_event(
                    "bucket",
                    {
                        "series_id": name,
                        "bucket_start_ms": start,
                        "values": named_sums(values),
                        **ages[name],
                    },
                )
                for start, values in sums
            ]
    return events


def sse_event(kind: str, body: Mapping[str, Any]) -> str:
    r"""Format a server-sent event.

    >>> sse_event("bucket", {"a": 1})
    'event: bucket\ndata: {"a":1}\n\n'
    """
    return f"event: {kind}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n"
