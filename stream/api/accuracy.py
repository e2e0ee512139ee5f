"""`GET /v1/accuracy`: accuracy of published forecasts against the actuals."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from model.evaluation.score_sums import score_of
from model.quantiles.bands import main_band
from stream.api.problems import Problem
from stream.api.schemas import Accuracy, AccuracyRow
from stream.api.shared_reader import SharedReader
from stream.state.keys import KEEP_DAYS

router = APIRouter(tags=["accuracy"])


@router.get("/v1/accuracy")
def get_accuracy(
    request: Request,
    days: Annotated[
        int, Query(ge=1, le=KEEP_DAYS, description="days of event time, including the current one")
    ] = 7,
    *,
    steps: Annotated[bool, Query(description="add a row for each horizon step")] = False,
) -> Accuracy:
    """Get WQL, bias and coverage of the published forecasts by model and volume class."""
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        info = reader.info()
        if info is None:
            raise Problem(404, "no-accuracy", "no worker has started yet")
        accuracy = reader.accuracy(days)
        calibrated = reader.calibrated()
    low, high = (info.quantiles[column] for column in main_band(info.quantiles))
    rows = []
    for model_id, volume, sums_HK in accuracy.models():
        for step in (None, *(range(len(sums_HK)) if steps else ())):
            score = score_of(sums_HK if step is None else sums_HK[step])
            if score.labels:
                rows.append(
                    AccuracyRow(
                        model_id=model_id,
                        volume=volume,
                        step=None if step is None else step + 1,
                        labels=score.labels,
                        wql=score.wql,
                        naive_wql=score.naive_wql,
                        wql_beside_naive=score.wql_beside_naive,
                        bias=score.bias,
                        coverage=score.coverage,
                        interval_coverage=score.interval_coverage,
                        outer_coverage=score.outer_coverage,
                        cumulative_coverage=score.cumulative_coverage,
                    )
                )
    return Accuracy(
        from_ms=accuracy.from_ms,
        to_ms=accuracy.to_ms,
        bucket_ms=info.bucket_ms,
        band=(low, high),
        nominal_coverage=round(high - low, 6),
        outer_band=(info.quantiles[0], info.quantiles[-1]),
        nominal_outer_coverage=round(info.quantiles[-1] - info.quantiles[0], 6),
        calibrated=calibrated,
        rows=rows,
    )
