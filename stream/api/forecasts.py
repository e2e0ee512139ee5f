"""`GET /v1/forecasts/{series_id}`, `POST /v1/forecasts:batch` and `POST /v1/forecasts:sum`."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from stream.api.problems import Problem, no_forecast, unknown_series
from stream.api.schemas import BatchRequest, Forecast, ForecastBatch, SetForecast
from stream.api.shared_reader import SharedReader, age_fields
from stream.readside.series_answers import SeriesForecast
from stream.readside.set_forecasts import ForecastSumReads, forecast_of_set
from stream.series_ids import TOTAL, is_rollup, split_series

router = APIRouter(tags=["forecasts"])


def forecast_body(
    forecast: SeriesForecast,
    *,
    horizon: int | None = None,
    quantiles: Sequence[float] | None = None,
) -> Forecast:
    """Return a forecast as a response body, limited to a horizon and to some quantiles.

    Raises Problem for a horizon beyond the forecast's, or an unknown quantile.
    """
    columns = _columns(forecast.quantiles, len(forecast.units_HQ), horizon, quantiles)
    sku, location = split_series(forecast.series_id)
    return Forecast(
        series_id=forecast.series_id,
        sku=sku,
        location=location,
        origin_ms=forecast.origin_ms,
        bucket_ms=forecast.bucket_ms,
        quantiles=[forecast.quantiles[column] for column in columns],
        units=forecast.units_HQ[:horizon, columns].tolist(),
        cumulative_units=forecast.cumulative_HQ[:horizon, columns].tolist(),
        mean_units=forecast.mean_H[:horizon].tolist(),
        mean_cumulative=forecast.mean_H[:horizon].astype(float).cumsum().tolist(),
        **{name: block[:horizon, columns].tolist() for name, block in forecast.targets.items()},
        nowcast=None,
        model_id=forecast.model_id,
        calibrated=forecast.calibrated,
        watermark_ms=forecast.watermark_ms,
        emitted_ms=forecast.emitted_ms,
        **age_fields(forecast.age),
    )


def _columns(
    known: Sequence[float], steps: int, horizon: int | None, chosen: Sequence[float] | None
) -> list[int]:
    """Columns of the chosen quantiles. Raises Problem for a longer horizon or an unknown one."""
    if horizon is not None and horizon > steps:
        raise Problem(
            422, "horizon-too-long", f"horizon {horizon} exceeds the forecast's {steps} buckets"
        )
    wanted = frozenset(chosen or known)
    missing = sorted(wanted.difference(known))
    if missing:
        names = ", ".join(f"{level:g}" for level in known)
        raise Problem(422, "unknown-quantile", f"quantile {missing[0]:g} is not one of {names}")
    return [known.index(q) for q in sorted(wanted)]


def parse_quantiles(text: str | None) -> list[float] | None:
    """Parse quantiles such as `0.1,0.5,0.9`. Raises Problem for anything else.

    >>> parse_quantiles("0.1, 0.9"), parse_quantiles(None)
    ([0.1, 0.9], None)
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise Problem(
            422, "invalid-request", f"quantiles {text[:60]!r} are not numbers such as 0.1,0.5,0.9"
        ) from None


@router.get("/v1/forecasts/{series_id:path}", response_model_exclude_unset=True)
def get_forecast(
    request: Request,
    series_id: str,
    horizon: Annotated[int | None, Query(ge=1, description="number of buckets")] = None,
    quantiles: Annotated[
        str | None,
        Query(
            description="subset, such as 0.1,0.5,0.9",
            json_schema_extra={"pattern": r"^0?\.[0-9]+(,0?\.[0-9]+)*$"},
        ),
    ] = None,
) -> Forecast:
    """Get the newest forecast of a series."""
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        if reader.find(series_id) is None:
            raise unknown_series(series_id)
        forecast = reader.forecast(series_id)
    if forecast is None:
        raise no_forecast(series_id)
    return forecast_body(forecast, horizon=horizon, quantiles=parse_quantiles(quantiles))


@router.post("/v1/forecasts:batch", response_model_exclude_unset=True)
def get_forecasts(request: Request, body: BatchRequest) -> ForecastBatch:
    """Get the newest forecasts of up to 1,000 series."""
    shared: SharedReader = request.app.state.reader
    series_ids = list(dict.fromkeys(body.series_ids))
    with shared.reading() as reader:
        live = reader.live(series_ids)
    forecasts = {series_id: live[series_id][1] for series_id in series_ids}
    return ForecastBatch(
        forecasts=[
            forecast_body(forecast, horizon=body.horizon, quantiles=body.quantiles)
            for forecast in forecasts.values()
            if forecast is not None
        ],
        missing=[name for name, forecast in forecasts.items() if forecast is None],
    )


@router.post("/v1/forecasts:sum")
def get_sum(request: Request, body: BatchRequest) -> SetForecast:
    """Forecast the demand of up to 1,000 series together; each counts once."""
    shared: SharedReader = request.app.state.reader
    sums: ForecastSumReads = request.app.state.forecast_sums
    series_ids = list(dict.fromkeys(body.series_ids))
    rolled_up = [name for name in series_ids if is_rollup(name)]
    if rolled_up:
        raise Problem(
            422, "roll-up-in-set", f"{rolled_up[0]} is a sum of series already; name its series"
        )
    with shared.reading() as reader:
        info = reader.info()
        live = reader.live(series_ids)
        total = reader.forecast(TOTAL) if reader.find(TOTAL) else None
        known = {name: live[name][1] for name in series_ids if reader.find(name)}
    for name in series_ids:
        if name not in known:
            raise unknown_series(name)
    forecasts = [forecast for forecast in known.values() if forecast is not None]
    if info is None or len(forecasts) < len(series_ids):
        raise no_forecast(next(name for name in series_ids if known[name] is None))
    first = forecasts[0]
    if len({forecast.origin_ms for forecast in forecasts}) > 1:
        raise Problem(
            503, "origins-differ", "the series are not all forecast from the same bucket yet"
        )
    made = forecast_of_set(
        forecasts, total, sums.read(first.origin_ms, first.bucket_ms, partitions=info.partitions)
    )
    columns = _columns(made.quantiles, len(made.units_HQ), body.horizon, body.quantiles)
    ages = [forecast.age for forecast in forecasts]
    return SetForecast(
        series=len(forecasts),
        origin_ms=made.origin_ms,
        bucket_ms=made.bucket_ms,
        quantiles=[made.quantiles[column] for column in columns],
        units=made.units_HQ[: body.horizon, columns].tolist(),
        cumulative_units=made.cumulative_HQ[: body.horizon, columns].tolist(),
        mean_units=made.mean_H[: body.horizon].tolist(),
        mean_cumulative=made.mean_H[: body.horizon].cumsum().tolist(),
        joint=made.joint,
        age_ms=max((age.age_ms for age in ages if age.age_ms is not None), default=None),
        stale=any(age.stale for age in ages),
    )
