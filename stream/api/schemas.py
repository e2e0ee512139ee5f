"""Request and response bodies. Times are UTC milliseconds since the epoch; quantities are units."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from stream.series_ids import Level


class Aged(BaseModel):
    """Age of an answer about a series: time since all its records were known to be counted."""

    age_ms: int | None = Field(description="null if its input has never been read to its end")
    stale: bool = Field(description="true beyond 10 s, or if its worker does not report")


class SeriesItem(Aged):
    """A series in the list."""

    series_id: str
    level: Level
    sku: str | None
    location: str | None
    category: str | None


class SeriesPage(BaseModel):
    """A page of the list; `next_cursor` is null on the last page."""

    series: list[SeriesItem]
    next_cursor: str | None


class Demand(Aged):
    """Quantiles [H][Q] and expected values [H] of demand, in units sold, from `origin_ms` on."""

    origin_ms: int
    bucket_ms: int
    quantiles: list[float]
    units: list[list[float]]
    cumulative_units: list[list[float]]
    mean_units: list[float]
    mean_cumulative: list[float]


class Forecast(Demand):
    """`units[h][q]`: quantile q of the demand in bucket `[origin_ms + h·bucket_ms, …)`, h from 0.

    `cumulative_units[h][q]`: quantile q of the sum of buckets 0…h, forecast directly.
    `mean_units[h]` and `mean_cumulative[h]` are the expected values of both; those of products,
    categories and `total` add up. `revenue` and `visitors` are like `units`, and absent if the
    model does not forecast them.
    """

    series_id: str
    sku: str | None
    location: str | None
    revenue: list[list[float]] | None = None
    visitors: list[list[float]] | None = None
    nowcast: None = None
    model_id: str
    calibrated: bool
    watermark_ms: int
    emitted_ms: int


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is no character") from None
    return text


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "Input should be a number")
    return value


class BatchRequest(BaseModel):
    """A request for up to 1,000 series."""

    series_ids: Annotated[
        list[Annotated[str, AfterValidator(_encodable)]], Field(min_length=1, max_length=1_000)
    ]
    horizon: Annotated[int | None, Field(ge=1), BeforeValidator(_number)] = None
    quantiles: list[Annotated[float, Field(gt=0, lt=1, strict=True)]] | None = None


class ForecastBatch(BaseModel):
    """Forecasts in the order of the request; `missing` series are unknown or not forecast yet."""

    forecasts: list[Forecast]
    missing: list[str]


class SetForecast(Demand):
    """Forecast of the demand of a set of series together; fields as those of `Forecast`.

    Errors of series are partly their own and partly those of the whole shop, as the forecast of
    `total` shows; `joint` is false while that is unknown, and the band then too narrow.
    """

    series: int = Field(description="series in the set")
    joint: bool


class Bucket(BaseModel):
    """A bucket's features by name."""

    bucket_start_ms: int
    values: dict[str, float]


class History(Aged):
    """Closed buckets that start in `[from_ms, to_ms)`, oldest first; zeros without events."""

    series_id: str
    bucket_ms: int
    from_ms: int
    to_ms: int
    buckets: list[Bucket]


class Rates(BaseModel):
    """Rates over the last 24 h; null if the divisor is zero."""

    units_per_hour: float
    conversion: float | None = Field(description="purchases per view")
    cart_rate: float | None = Field(description="cart additions per view")
    return_rate: float | None = Field(description="units returned per unit sold")
    mean_price: float | None = Field(description="revenue per unit sold, net of returns")
    relative_price: float | None = Field(description="mean price divided by that of 28 days")


class StockNow(BaseModel):
    """Stock from the `inventory` topic, as of the newest closed bucket."""

    on_hand: int
    stockout_share_24h: float = Field(description="share of the last 24 h out of stock")


class Trend(BaseModel):
    """Units of the last 24 h compared with the mean day of up to seven days before.

    `week_change` compares the last seven days with the mean week of the last 28 days.
    """

    units_24h: float
    mean_day_units: float
    change: float | None = Field(description="1.0 is twice the mean day")
    week_change: float | None = Field(description="1.0 is twice the mean week")


class Features(Aged):
    """Rolling sums of closed buckets before `as_of_ms`, and the sums so far of open buckets.

    A window is null if it is shorter than a bucket, `28d` also if it has more than 10,000 buckets.
    `trend` is null without a full day to compare with, `stock` without an inventory reading.
    `units_winsorised` is the newest bucket's units after the outlier limit that training derives
    from the last 28 days (8 days if 28 have more than 10,000 buckets).
    """

    series_id: str
    bucket_ms: int
    as_of_ms: int
    windows: dict[str, dict[str, float] | None]
    rates: Rates
    trend: Trend | None
    stock: StockNow | None
    units_winsorised: float | None
    open: list[Bucket]


class AccuracyRow(BaseModel):
    """Accuracy of one model for one volume class; pooled over steps if `step` is null.

    `volume` is the class of the mean forecast units per bucket: low < 0.1 ≤ medium < 1 ≤ high;
    `rollup` is total, categories and locations, `all` is every other series.
    """

    model_id: str
    volume: Literal["all", "low", "medium", "high", "rollup"]
    step: int | None = Field(description="1 is the first bucket after the origin")
    labels: int = Field(description="scored forecasts; a sample represents its class")
    wql: float | None = Field(description="2 · Σ pinball / Σ units, mean over the band's quantiles")
    naive_wql: float | None = Field(description="WQL of the seasonal naive, last week's units")
    wql_beside_naive: float | None = Field(description="WQL over the buckets of naive_wql")
    bias: float | None = Field(description="Σ (median − units) / Σ units")
    coverage: float | None = Field(
        description="share of demand inside the band, by the PIT of counts"
    )
    interval_coverage: float | None = Field(
        description="share of demand inside the band, ends included"
    )
    outer_coverage: float | None = Field(description="as `coverage`, inside the outer band")
    cumulative_coverage: float | None = Field(description="as `coverage`, of cumulative demand")


class Accuracy(BaseModel):
    """Accuracy of published forecasts over whole days `[from_ms, to_ms)` of event time."""

    from_ms: int
    to_ms: int
    bucket_ms: int
    band: tuple[float, float] = Field(description="quantiles of the band")
    nominal_coverage: float
    outer_band: tuple[float, float] = Field(description="the outermost quantiles")
    nominal_outer_coverage: float
    calibrated: bool = Field(description="true if the newest forecasts are calibrated")
    rows: list[AccuracyRow]
