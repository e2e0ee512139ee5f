"""`GET /v1/history/{series_id}` and `GET /v1/features/{series_id}`: what happened so far."""

from datetime import datetime
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES
from stream.features.definitions import CARTS, PURCHASES, RETURNS, REVENUE, UNITS, VIEWS
from stream.feed.answers import OpenBucket
from stream.feed.api.gate import Gate, age_fields
from stream.feed.api.models import Bucket, Features, History, Rates, Trend
from stream.feed.api.problems import Problem, unknown_series
from stream.feed.rolling import BASE_DAYS, DAY_MS, mean_day, share, trailing_sums

router = APIRouter(tags=["history"])

_MOST_BUCKETS: Final = 10_000
_WINDOWS: Final = {"1h": 3_600_000, "24h": DAY_MS, "7d": 7 * DAY_MS}
_TIME: Final = "milliseconds since the epoch, or RFC 3339"


def parse_time_ms(text: str) -> int:
    """Milliseconds of a time written as such or by RFC 3339. Raises Problem for anything else.

    >>> parse_time_ms("1322582400000"), parse_time_ms("2011-11-29T16:00:00Z")
    (1322582400000, 1322582400000)
    """
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(422, "invalid-time", f"{text!r} is neither {_TIME}") from None
    if moment.tzinfo is None:
        raise Problem(422, "invalid-time", f"{text!r} has no offset from UTC; add Z or +01:00")
    return round(moment.timestamp() * 1_000)


@router.get("/v1/history/{series_id:path}")
def get_history(
    request: Request,
    series_id: str,
    from_: Annotated[str | None, Query(alias="from", description=_TIME)] = None,
    to: Annotated[str | None, Query(description=_TIME)] = None,
) -> History:
    """Get closed buckets; without a range, those of the last seven days of event time."""
    gate: Gate = request.app.state.gate
    with gate.reading() as reader:
        info, progress = reader.info(), reader.progress(series_id)
        if reader.find(series_id) is None or info is None:
            raise unknown_series(series_id)
        end_ms = progress.closed_through_ms if progress else 0
        to_ms = parse_time_ms(to) if to else end_ms
        from_ms = parse_time_ms(from_) if from_ else to_ms - 7 * DAY_MS
        if progress is not None:
            n = len(progress.closed_starts(from_ms, to_ms, bucket_ms=info.bucket_ms))
            if n > _MOST_BUCKETS:
                raise Problem(
                    422, "range-too-long", f"{n:,} buckets; ask for at most {_MOST_BUCKETS:,}"
                )
        history = reader.history(series_id, from_ms, to_ms)
    rows = zip(history.start_T.tolist(), history.values_TF.tolist(), strict=True)
    return History(
        series_id=series_id,
        bucket_ms=info.bucket_ms,
        from_ms=from_ms,
        to_ms=to_ms,
        buckets=[Bucket(bucket_start_ms=start, values=_named(row)) for start, row in rows],
        **age_fields(history.age),
    )


@router.get("/v1/features/{series_id:path}")
def get_features(request: Request, series_id: str) -> Features:
    """Get rolling sums over 1 h, 24 h and 7 d of event time, rates and trend."""
    gate: Gate = request.app.state.gate
    with gate.reading() as reader:
        info = reader.info()
        if reader.find(series_id) is None or info is None:
            raise unknown_series(series_id)
        opened = reader.open_bucket(series_id)
        progress = reader.progress(series_id)
        end_ms = progress.closed_through_ms if progress else 0
        past = reader.history(series_id, end_ms - (BASE_DAYS + 1) * DAY_MS, end_ms)
    sums = {
        name: trailing_sums(past.start_T, past.values_TF, end_ms=end_ms, span_ms=span_ms)
        for name, span_ms in _WINDOWS.items()
        if span_ms >= info.bucket_ms
    }
    mean_F = mean_day(past.start_T, past.values_TF, end_ms=end_ms)
    return Features(
        series_id=series_id,
        bucket_ms=info.bucket_ms,
        as_of_ms=end_ms,
        windows={name: _named(sums[name]) if name in sums else None for name in _WINDOWS},
        rates=rates(sums["24h"]),
        trend=None if mean_F is None else trend(sums["24h"], mean_F),
        open=[_open(bucket) for bucket in opened],
        **age_fields(past.age),
    )


def rates(day_F: NDArray[np.float64]) -> Rates:
    """Rates of the last 24 h from its sums, float64 [F].

    >>> rates(np.array([10, 2, 40, 6, 100, 20, 0, 5, 60.0])).mean_price
    5.0
    """
    units, returns, revenue, views, carts, purchases = day_F[
        [UNITS, RETURNS, REVENUE, VIEWS, CARTS, PURCHASES]
    ].tolist()
    return Rates(
        units_per_hour=units / 24,
        conversion=share(purchases, views),
        cart_rate=share(carts, views),
        return_rate=share(returns, units),
        mean_price=share(revenue, units - returns),
    )


def trend(day_F: NDArray[np.float64], mean_F: NDArray[np.float64]) -> Trend:
    """Units of the last 24 h against the mean day before.

    >>> trend(np.full(9, 30.0), np.full(9, 20.0)).change
    0.5
    """
    now, before = float(day_F[UNITS]), float(mean_F[UNITS])
    change = now / before - 1 if before > 0 else None
    return Trend(units_24h=now, mean_day_units=before, change=change)


def _named(values_F: Any) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, map(float, values_F), strict=True))


def _open(bucket: OpenBucket) -> Bucket:
    return Bucket(bucket_start_ms=bucket.start_ms, values=_named(bucket.values_F))
