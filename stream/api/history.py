"""`GET /v1/history/{series_id}` and `GET /v1/features/{series_id}`: closed buckets and features."""

import re
from datetime import datetime
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray

from model.durations import DAY_MS, HOUR_MS
from stream.api.problems import Problem, unknown_series
from stream.api.schemas import Bucket, Features, History, Rates, StockNow, Trend
from stream.api.shared_reader import SharedReader, age_fields
from stream.features.definitions import CARTS, RETURNS, STOCK, STOCKOUT_SHARE, UNITS, VIEWS
from stream.features.derived import (
    conversion,
    mean_price,
    named_sums,
    named_values,
    relative_price,
    share,
    units_winsorised,
)
from stream.readside.rolling.trailing_sums import BASE_DAYS, mean_day, trailing_sums
from stream.readside.series_answers import Floats, OpenSums

router = APIRouter(tags=["history"])

_MAX_BUCKETS: Final = 10_000
_WINDOWS: Final = {"1h": HOUR_MS, "24h": DAY_MS, "7d": 7 * DAY_MS, "28d": 28 * DAY_MS}
#: Sums over a span, float64 [F].
Sums = NDArray[np.float64]
_TIME_FORMATS: Final = "milliseconds since the epoch, or RFC 3339"
_TIME: Final = {"pattern": r"^(-?[0-9]{1,15}|[0-9]{4}-[0-9]{2}-[0-9]{2}T.+(Z|[+-][0-9:]{5}))$"}
#: Up to 15 digits: beyond the year 9999 in either direction.
_WHOLE_MS: Final = re.compile(r"-?[0-9]{1,15}")


def parse_time_ms(text: str) -> int:
    """Parse a time in milliseconds or RFC 3339. Raises Problem for anything else.

    >>> parse_time_ms("1322582400000"), parse_time_ms("2011-11-29T16:00:00Z")
    (1322582400000, 1322582400000)
    """
    if _WHOLE_MS.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(422, "invalid-time", f"time {text[:60]!r} is not {_TIME_FORMATS}") from None
    if moment.tzinfo is None:
        raise Problem(422, "invalid-time", f"time {text!r} has no UTC offset; add Z or +01:00")
    return round(moment.timestamp() * 1_000)


@router.get("/v1/history/{series_id:path}")
def get_history(
    request: Request,
    series_id: str,
    from_: Annotated[
        str | None, Query(alias="from", description=_TIME_FORMATS, json_schema_extra=_TIME)
    ] = None,
    to: Annotated[str | None, Query(description=_TIME_FORMATS, json_schema_extra=_TIME)] = None,
) -> History:
    """Get closed buckets; the default range is the last seven days of event time."""
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        info, progress = reader.info(), reader.progress(series_id)
        if reader.find(series_id) is None or info is None:
            raise unknown_series(series_id)
        end_ms = progress.closed_through_ms if progress else 0
        to_ms = parse_time_ms(to) if to else end_ms
        from_ms = parse_time_ms(from_) if from_ else to_ms - 7 * DAY_MS
        if progress is not None:
            n = len(progress.closed_starts(from_ms, to_ms, bucket_ms=info.bucket_ms))
            if n > _MAX_BUCKETS:
                raise Problem(
                    422, "range-too-long", f"{n:,} buckets exceed the limit of {_MAX_BUCKETS:,}"
                )
        history = reader.history(series_id, from_ms, to_ms)
    rows = zip(history.start_T.tolist(), history.values_TF.tolist(), strict=True)
    return History(
        series_id=series_id,
        bucket_ms=info.bucket_ms,
        from_ms=from_ms,
        to_ms=to_ms,
        buckets=[Bucket(bucket_start_ms=start, values=named_values(row)) for start, row in rows],
        **age_fields(history.age),
    )


@router.get("/v1/features/{series_id:path}")
def get_features(request: Request, series_id: str) -> Features:
    """Get rolling sums over 1 h, 24 h, 7 d and 28 d of event time, rates, trend and stock."""
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        info = reader.info()
        if reader.find(series_id) is None or info is None:
            raise unknown_series(series_id)
        open_buckets = reader.open_bucket(series_id)
        progress = reader.progress(series_id)
        end_ms = progress.closed_through_ms if progress else 0
        fits = _WINDOWS["28d"] <= _MAX_BUCKETS * info.bucket_ms
        longest_ms = _WINDOWS["28d"] if fits else (BASE_DAYS + 1) * DAY_MS
        past = reader.history(series_id, end_ms - longest_ms, end_ms)
    sums = {
        name: trailing_sums(past.start_T, past.values_TF, end_ms=end_ms, span_ms=span_ms)
        for name, span_ms in _WINDOWS.items()
        if info.bucket_ms <= span_ms <= longest_ms
    }
    mean_F = mean_day(past.start_T, past.values_TF, end_ms=end_ms)
    past_ms = end_ms - int(past.start_T[0]) if len(past.start_T) else 0
    long_F = trailing_sums(past.start_T, past.values_TF, end_ms=end_ms, span_ms=longest_ms)
    return Features(
        series_id=series_id,
        bucket_ms=info.bucket_ms,
        as_of_ms=end_ms,
        windows={name: named_sums(sums[name]) if name in sums else None for name in _WINDOWS},
        rates=rates(sums["24h"], long_F),
        trend=(
            None
            if mean_F is None
            else trend(sums["24h"], mean_F, sums["7d"], long_F * (7 * DAY_MS / past_ms))
        ),
        stock=stock_now(past.values_TF[past.start_T >= end_ms - DAY_MS]),
        units_winsorised=units_winsorised(past.values_TF) if len(past.values_TF) else None,
        open=[_open(bucket) for bucket in open_buckets],
        **age_fields(past.age),
    )


def rates(day_F: Sums, long_F: Sums) -> Rates:
    """Return rates of the last 24 h; the relative price compares with the longer span.

    >>> day_F, long_F = np.array([10, 2, 40, 6, 100, 20, 0, 5, 60.0]), np.zeros(9)
    >>> rates(day_F, long_F).mean_price
    5.0
    """
    day, long = day_F.tolist(), long_F.tolist()
    return Rates(
        units_per_hour=day[UNITS] / 24,
        conversion=conversion(day),
        cart_rate=share(day[CARTS], day[VIEWS]),
        return_rate=share(day[RETURNS], day[UNITS]),
        mean_price=mean_price(day),
        relative_price=relative_price(day, long),
    )


def trend(day_F: Sums, mean_day_F: Sums, week_F: Sums, mean_week_F: Sums) -> Trend:
    """Compare units of the last 24 h with the mean day before, and of the week with the mean week.

    >>> trend(np.full(9, 30.0), np.full(9, 20.0), np.full(9, 50.0), np.full(9, 40.0)).change
    0.5
    """
    before = float(mean_day_F[UNITS])
    return Trend(
        units_24h=float(day_F[UNITS]),
        mean_day_units=before,
        change=_change(float(day_F[UNITS]), before),
        week_change=_change(float(week_F[UNITS]), float(mean_week_F[UNITS])),
    )


def _change(now: float, before: float) -> float | None:
    ratio = share(now, before)
    return None if ratio is None else ratio - 1


def stock_now(day_TF: Floats) -> StockNow | None:
    """Stock from the buckets of the last 24 h; None if unknown in the newest.

    >>> stock_now(np.array([[0.0] * 9 + [4.0, 0.0], [0.0] * 9 + [1.0, 0.5]]))
    StockNow(on_hand=0, stockout_share_24h=0.25)
    """
    if not len(day_TF) or day_TF[-1, STOCK] <= 0:
        return None
    known_TF = day_TF[day_TF[:, STOCK] > 0]
    return StockNow(
        on_hand=int(day_TF[-1, STOCK]) - 1,
        stockout_share_24h=float(known_TF[:, STOCKOUT_SHARE].mean(dtype=np.float64)),
    )


def _open(bucket: OpenSums) -> Bucket:
    return Bucket(bucket_start_ms=bucket.start_ms, values=named_sums(bucket.values_F))
