"""`GET /v1/explanations/{series_id}`: what a forecast consists of, computed by its worker."""

import asyncio
import time
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from stream.api.explanations.bodies import Explanation, explanation_body
from stream.api.problems import Problem, no_forecast, unknown_series
from stream.api.shared_reader import SharedReader
from stream.readside.explanations import ExplanationReads, SeriesExplanation, matched
from stream.readside.series_answers import SeriesForecast
from stream.state.keys import Tag

router = APIRouter(tags=["forecasts"])

#: How long a request waits for a worker's answer, and between two looks.
WAIT_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.1
_MISSING: Final = {
    "fallback": "the fallback serves, which reads the past units alone",
    "unseen-product": "a product without events is forecast by its category and price alone",
}


@router.get("/v1/explanations/{series_id:path}")
async def get_explanation(
    request: Request,
    series_id: str,
    horizon: Annotated[int | None, Query(ge=1, description="number of buckets")] = None,
) -> Explanation:
    """Get what the newest forecast of a series consists of.

    The worker computes it on request. 503 with `Retry-After` if it does not answer within two
    seconds; 404 for a forecast that was not made by a network.
    """
    shared: SharedReader = request.app.state.reader
    reads: ExplanationReads = request.app.state.explanations
    until_s = time.monotonic() + WAIT_S
    found, forecast = await run_in_threadpool(_newest, shared, series_id)
    asked = False
    while True:
        [stored] = await run_in_threadpool(reads.read, [found])
        if stored is not None and matched(stored, forecast) is None:  # of a newer forecast, or old
            found, forecast = await run_in_threadpool(_newest, shared, series_id)
        explanation = matched(stored, forecast)
        if explanation is not None:
            return _body(explanation, horizon)
        if not asked:
            await run_in_threadpool(reads.ask, [found])
            asked = True
        if time.monotonic() >= until_s:
            raise Problem(
                503, "explanation-not-ready",
                f"no worker has explained the newest forecast of {series_id!r} yet; try again",
                {"Retry-After": "1"},
            )  # fmt: skip
        await asyncio.sleep(_LOOK_EVERY_S)


def _newest(shared: SharedReader, series_id: str) -> tuple[tuple[Tag, int], SeriesForecast]:
    """Slot and newest forecast of a series. Raises Problem."""
    with shared.reading() as reader:
        found = reader.find(series_id)
        forecast = reader.forecast(series_id)
    if found is None:
        raise unknown_series(series_id)
    if forecast is None:
        raise no_forecast(series_id)
    return found, forecast


def _body(explanation: SeriesExplanation, horizon: int | None) -> Explanation:
    series_id, steps = explanation.forecast.series_id, len(explanation.median_H)
    if explanation.missing:
        raise Problem(
            404, "no-explanation",
            f"no explanation of the forecast of {series_id!r}: {_MISSING[explanation.missing]}",
        )  # fmt: skip
    if horizon is not None and horizon > steps:
        raise Problem(
            422, "horizon-too-long", f"horizon {horizon} exceeds the forecast's {steps} buckets"
        )
    return explanation_body(explanation, horizon=horizon or steps)
