"""The response body of an explanation."""

from pydantic import BaseModel, Field

from stream.api.schemas import Aged
from stream.api.shared_reader import age_fields
from stream.readside.explanations import SeriesExplanation
from stream.series_ids import split_series


class Part(BaseModel):
    """A contribution: units that it adds to the median of each bucket, and of each sum."""

    name: str
    units: list[float]
    cumulative_units: list[float]
    factors: list[float] | None = Field(
        default=None,
        description="of the level: of week, year and special_day alone; of recent, whose units "
        "also contain what the network adds for the newest sales",
    )


class Explanation(Aged):
    """Contributions that sum to the published median of each bucket, in units sold.

    `level` is the usual level of the series, `adjustment` what follows the model: calibration, the
    cut at zero, sums that are never below their parts. Contributions that are zero throughout are
    absent. `special_days[h]` names the special day of bucket h, null for usual days.
    """

    series_id: str
    sku: str | None
    location: str | None
    origin_ms: int
    bucket_ms: int
    quantile: float = Field(description="the published quantile nearest to 0.5, which is explained")
    units: list[float]
    cumulative_units: list[float]
    contributions: list[Part]
    special_days: list[str | None]
    model_id: str
    calibrated: bool


def explanation_body(found: SeriesExplanation, *, horizon: int) -> Explanation:
    """Return an explanation as a response body, limited to a horizon."""
    forecast = found.forecast
    sku, location = split_series(forecast.series_id)
    return Explanation(
        series_id=forecast.series_id,
        sku=sku,
        location=location,
        origin_ms=forecast.origin_ms,
        bucket_ms=forecast.bucket_ms,
        quantile=found.quantile,
        units=found.median_H[:horizon].tolist(),
        cumulative_units=found.cumulative_H[:horizon].tolist(),
        contributions=[
            Part(
                name=part.name,
                units=part.units_H[:horizon].tolist(),
                cumulative_units=part.cumulative_H[:horizon].tolist(),
                factors=None if part.factors_H is None else part.factors_H[:horizon].tolist(),
            )
            for part in found.contributions
        ],
        special_days=[name or None for name in found.special_days[:horizon]],
        model_id=forecast.model_id,
        calibrated=forecast.calibrated,
        **age_fields(forecast.age),
    )
