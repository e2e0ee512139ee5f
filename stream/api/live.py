"""`GET /v1/stream?series=…`: forecasts and open buckets as they change, as server-sent events.

Events: `forecast` (the body of `GET /v1/forecasts/{series_id}`) when a series has a newer one,
`bucket` (an open bucket and its sums so far) when its sums change. At most four looks a second; a
comment every 15 s keeps proxies from closing a quiet connection.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from stream.api.forecasts import body_of
from stream.api.problems import Problem, unknown_series
from stream.api.shared_reader import SharedReader, age_fields
from stream.errors import ServiceUnavailable
from stream.features.derived import named_sums
from stream.readside.reader import Live

router = APIRouter(tags=["live"])

_EVERY_S: Final = 0.25
_BEATS: Final = 60  # looks without news before a comment is sent
_MOST_SERIES: Final = 100
_MOST_LISTENERS: Final = 200


@router.get("/v1/stream", response_class=StreamingResponse)
async def stream_series(
    request: Request,
    series: Annotated[list[str], Query(description="repeat it, or separate ids by commas")],
) -> StreamingResponse:
    """Follow up to 100 series."""
    gate: SharedReader = request.app.state.gate
    listeners: set[object] = request.app.state.listeners
    names = list(dict.fromkeys(name for part in series for name in part.split(",") if name))
    if not 1 <= len(names) <= _MOST_SERIES:
        raise Problem(422, "invalid-request", f"name 1 to {_MOST_SERIES} series")
    if len(listeners) >= _MOST_LISTENERS:
        raise Problem(503, "too-many-listeners", f"{_MOST_LISTENERS} listeners are served already")
    await run_in_threadpool(_require_known, gate, names)
    return StreamingResponse(
        _events(gate, names, listeners),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _require_known(gate: SharedReader, names: list[str]) -> None:
    with gate.reading() as reader:
        for name in names:
            if reader.find(name) is None:
                raise unknown_series(name)


def _look(
    gate: SharedReader, names: list[str]
) -> tuple[dict[str, Live], dict[str, dict[str, Any]]]:
    with gate.reading() as reader:
        return reader.live(names), {name: age_fields(reader.age(name)) for name in names}


async def _events(
    gate: SharedReader, names: list[str], listeners: set[object]
) -> AsyncIterator[str]:
    me = object()
    listeners.add(me)
    told: dict[tuple[str, str], Any] = {}
    quiet = 0
    try:
        while True:
            try:
                news = changed(told, *await run_in_threadpool(_look, gate, names))
            except ServiceUnavailable as error:
                news = [event("unavailable", {"detail": str(error)})] if quiet == 0 else []
            for text in news:
                yield text
            quiet = 0 if news else quiet + 1
            if quiet >= _BEATS:
                yield ": still here\n\n"
                quiet = 1
            await asyncio.sleep(_EVERY_S)
    finally:
        listeners.discard(me)


def changed(
    told: dict[tuple[str, str], Any],
    live: Mapping[str, Live],
    ages: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Events for what differs from what was told before; `told` is brought up to date."""
    news = []
    for name, (opened, forecast) in live.items():
        if forecast is not None:
            mark = (forecast.origin_ms, forecast.emitted_ms, forecast.model_id)
            if told.get((name, "forecast")) != mark:
                told[name, "forecast"] = mark
                news.append(event("forecast", body_of(forecast).model_dump()))
        sums = [(bucket.start_ms, bucket.values_F.tolist()) for bucket in opened]
        if told.get((name, "bucket")) != sums:
            told[name, "bucket"] = sums
            news += [
                event(
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
    return news


def event(kind: str, body: Mapping[str, Any]) -> str:
    r"""One server-sent event.

    >>> event("bucket", {"a": 1})
    'event: bucket\ndata: {"a":1}\n\n'
    """
    return f"event: {kind}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n"
