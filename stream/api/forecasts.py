"""`GET /v1/forecasts/{series_id}` and `POST /v1/forecasts:batch`."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from stream.api.problems import Problem, no_forecast, unknown_series
from stream.api.schemas import BatchRequest, Forecast, ForecastBatch
from stream.api.shared_reader import SharedReader, age_fields
from stream.readside.series_answers import SeriesForecast
from stream.series_ids import split_series

router = APIRouter(tags=["forecasts"])


def body_of(
    forecast: SeriesForecast,
    *,
    horizon: int | None = None,
    quantiles: Sequence[float] | None = None,
) -> Forecast:
    """A forecast as the answer's body, cut to a horizon and to some of its quantiles.

    Raises Problem for a horizon beyond the forecast's or a quantile it does not have.
    """
    steps = len(forecast.units_HQ)
    if horizon is not None and horizon > steps:
        raise Problem(422, "horizon-too-long", f"horizon {horizon} exceeds the forecast's {steps}")
    wanted = tuple(quantiles) if quantiles else forecast.quantiles
    missing = [q for q in wanted if q not in forecast.quantiles]
    if missing:
        has = ", ".join(f"{q:g}" for q in forecast.quantiles)
        raise Problem(422, "unknown-quantile", f"quantile {missing[0]:g} is not among {has}")
    columns = [forecast.quantiles.index(q) for q in sorted(wanted)]
    sku, location = split_series(forecast.series_id)
    return Forecast(
        series_id=forecast.series_id,
        sku=sku,
        location=location,
        origin_ms=forecast.origin_ms,
        bucket_ms=forecast.bucket_ms,
        quantiles=sorted(wanted),
        units=forecast.units_HQ[:horizon, columns].tolist(),
        cumulative_units=forecast.cumulative_HQ[:horizon, columns].tolist(),
        **{name: block[:horizon, columns].tolist() for name, block in forecast.targets.items()},
        nowcast=None,
        model_id=forecast.model_id,
        calibrated=forecast.calibrated,
        watermark_ms=forecast.watermark_ms,
        emitted_ms=forecast.emitted_ms,
        **age_fields(forecast.age),
    )


def parse_quantiles(text: str | None) -> list[float] | None:
    """Quantiles written `0.1,0.5,0.9`. Raises Problem for anything else.

    >>> parse_quantiles("0.1, 0.9"), parse_quantiles(None)
    ([0.1, 0.9], None)
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise Problem(422, "invalid-request", "quantiles are written like 0.1,0.5,0.9") from None


@router.get("/v1/forecasts/{series_id:path}", response_model_exclude_unset=True)
def get_forecast(
    request: Request,
    series_id: str,
    horizon: Annotated[int | None, Query(ge=1, description="first buckets only")] = None,
    quantiles: Annotated[str | None, Query(description="some of them, like 0.1,0.5,0.9")] = None,
) -> Forecast:
    """Get the newest forecast of a series."""
    gate: SharedReader = request.app.state.gate
    with gate.reading() as reader:
        if reader.find(series_id) is None:
            raise unknown_series(series_id)
        forecast = reader.forecast(series_id)
    if forecast is None:
        raise no_forecast(series_id)
    return body_of(forecast, horizon=horizon, quantiles=parse_quantiles(quantiles))


@router.post("/v1/forecasts:batch", response_model_exclude_unset=True)
def get_forecasts(request: Request, body: BatchRequest) -> ForecastBatch:
    """Get the newest forecasts of up to 1,000 series."""
    gate: SharedReader = request.app.state.gate
    wanted = list(dict.fromkeys(body.series_ids))
    with gate.reading() as reader:
        live = reader.live(wanted)
    found = [live[name][1] for name in wanted]
    return ForecastBatch(
        forecasts=[
            body_of(forecast, horizon=body.horizon, quantiles=body.quantiles)
            for forecast in found
            if forecast is not None
        ],
        missing=[name for name, forecast in zip(wanted, found, strict=True) if forecast is None],
    )
