"""Bodies of the API. Times are milliseconds since the epoch, UTC; quantities are units."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from stream.series_ids import Level


class Aged(BaseModel):
    """Carried by every answer about a series: time since its worker last reported."""

    age_ms: int | None = Field(description="None when no worker was ever seen")
    stale: bool


class SeriesItem(Aged):
    """One series of the list."""

    series_id: str
    level: Level
    sku: str | None
    location: str | None
    category: str | None


class SeriesPage(BaseModel):
    """A page of the list; `next_cursor` is None on the last."""

    series: list[SeriesItem]
    next_cursor: str | None


class Forecast(Aged):
    """`units[h][q]`: quantile q of the demand in bucket `[origin_ms + h·bucket_ms, …)`, h from 0.

    `cumulative_units[h][q]`: quantile of the sum of buckets 0…h, forecast as such. `revenue` and
    `visitors` are like `units`, and left out where the model does not forecast them.
    """

    series_id: str
    sku: str | None
    location: str | None
    origin_ms: int
    bucket_ms: int
    quantiles: list[float]
    units: list[list[float]]
    cumulative_units: list[list[float]]
    revenue: list[list[float]] | None = None
    visitors: list[list[float]] | None = None
    nowcast: None = None
    model_id: str
    calibrated: bool
    watermark_ms: int
    emitted_ms: int


class BatchRequest(BaseModel):
    """Up to 1,000 series at once."""

    series_ids: Annotated[list[str], Field(min_length=1, max_length=1_000)]
    horizon: Annotated[int | None, Field(ge=1)] = None
    quantiles: list[float] | None = None


class ForecastBatch(BaseModel):
    """Forecasts in the order asked for; `missing` are unknown or not forecast yet."""

    forecasts: list[Forecast]
    missing: list[str]


class Bucket(BaseModel):
    """A bucket's features by name."""

    bucket_start_ms: int
    values: dict[str, float]


class History(Aged):
    """Closed buckets that start in `[from_ms, to_ms)`, oldest first, silent ones as zeros."""

    series_id: str
    bucket_ms: int
    from_ms: int
    to_ms: int
    buckets: list[Bucket]


class Rates(BaseModel):
    """Over the last 24 h; None where there is nothing to divide by."""

    units_per_hour: float
    conversion: float | None = Field(description="purchases per view")
    cart_rate: float | None = Field(description="carts per view")
    return_rate: float | None = Field(description="units returned per unit sold")
    mean_price: float | None = Field(description="revenue per unit kept")
    relative_price: float | None = Field(description="mean price against that of 28 days")


class StockNow(BaseModel):
    """The stock by the readings of `inventory`, as of the newest closed bucket."""

    on_hand: int
    stockout_share_24h: float = Field(description="share of the last 24 h with nothing on hand")


class Trend(BaseModel):
    """Units of the last 24 h against the mean day of up to seven days before.

    `week_change` compares the last seven days with the mean week of the 28 days that end with them.
    """

    units_24h: float
    mean_day_units: float
    change: float | None = Field(description="1.0 is twice the mean day")
    week_change: float | None = Field(description="1.0 is twice the mean week")


class Features(Aged):
    """Rolling sums of closed buckets before `as_of_ms`, and what is in the open ones so far.

    A window shorter than a bucket is None, or one of more than 10,000 buckets; so is the trend
    without a full day to compare with, and the stock of a series that has no reading.
    `units_winsorised` is the newest bucket's units, cut down to what training would believe of the
    trailing 28 days (fewer where they are more than 10,000 buckets).
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
    """Forecasts of one model for one volume class, pooled over steps where `step` is None.

    `volume` is by the mean units a bucket that were forecast: low < 0.1 ≤ medium < 1 ≤ high;
    `rollup` is total, categories and locations, `all` every series but those.
    """

    model_id: str
    volume: Literal["all", "low", "medium", "high", "rollup"]
    step: int | None = Field(description="1 is the bucket right after the forecast")
    labels: int = Field(description="forecasts that were scored; a sample stands for its class")
    wql: float | None = Field(description="2 · Σ pinball / Σ units, mean over quantiles")
    naive_wql: float | None = Field(description="of last week's units at the same time")
    wql_beside_naive: float | None = Field(description="over the buckets of naive_wql")
    bias: float | None = Field(description="Σ (median − units) / Σ units")
    coverage: float | None = Field(
        description="share of demand in the outermost band, ties of counts spread evenly"
    )
    interval_coverage: float | None = Field(description="the same with both ends counted in")


class Accuracy(BaseModel):
    """What was forecast against what came, over whole days `[from_ms, to_ms)` of event time."""

    from_ms: int
    to_ms: int
    bucket_ms: int
    band: tuple[float, float] = Field(description="quantiles of the outermost band")
    nominal_coverage: float
    calibrated: bool = Field(description="whether the newest forecasts are calibrated")
    rows: list[AccuracyRow]
