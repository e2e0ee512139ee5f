"""Live scoring over both implementations of its reads: arrays and Redis."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from redis import Redis

from stream.scoring.live_scoring import LiveScoring
from tests.support.scoring_cases import (
    SETTINGS,
    RedisReads,
    array_reads,
    forecasts,
    levels,
    require_same,
    run,
    values,
)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def reads(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both implementations of the port, over the same history."""
    if request.param == "memory":
        yield array_reads()
    else:
        yield RedisReads(request.getfixturevalue("redis_client"), values())


def test_a_successor_continues_exactly_where_the_owner_stopped(reads: Any) -> None:
    """After any close: levels, pending forecasts and the day's sums are stored."""
    given = forecasts(values(), 30, 44)
    owner, successor = LiveScoring(SETTINGS, reads), LiveScoring(SETTINGS, reads)
    run(owner, reads, given[:10])

    for forecast in given[10:]:
        expected = owner.score_and_correct(0, forecast)
        require_same(successor.score_and_correct(0, forecast), expected)
        reads.write(expected.write)
        successor.forget(0)  # each close has a new owner


@pytest.mark.integration
def test_both_stores_lead_to_the_same_scores(redis_client: Redis) -> None:
    given = forecasts(values(), 30, 50)
    memory, redis = array_reads(), RedisReads(redis_client, values())

    for left, right in zip(
        run(LiveScoring(SETTINGS, memory), memory, given),
        run(LiveScoring(SETTINGS, redis), redis, given),
        strict=True,
    ):
        require_same(left, right)


def test_a_new_model_inherits_usual_levels_and_learns_from_its_own_forecasts(reads: Any) -> None:
    """Levels that a drift has moved far do not fit a model trained on the drift."""
    settings = SETTINGS.model_copy(update={"rate": 0.3})
    scoring = LiveScoring(settings, reads)
    low = [
        replace(
            forecast,
            model_id="lstm-1",
            units_SHQ=forecast.units_SHQ * np.float32(0.2),
            cumulative_SHQ=forecast.cumulative_SHQ * np.float32(0.2),
        )
        for forecast in forecasts(values(), 30, 62)
    ]
    drifted = run(scoring, reads, low[:30])[-1]
    nominal_Q = np.asarray(low[0].quantiles, np.float32)
    assert (levels(drifted) - nominal_Q).max() > 0.2

    first, second = run(
        scoring, reads, [replace(forecast, model_id="lstm-2") for forecast in low[30:]]
    )
    assert np.abs(levels(first) - nominal_Q).max() <= 0.1 + 1e-6
    assert (levels(first) != nominal_Q).any()
    assert first.calibrated == drifted.calibrated
    # only the first step of the new model has closed; labels of the old one are scored only
    assert (levels(second)[:, 0] != levels(first)[:, 0]).any()
    np.testing.assert_array_equal(levels(second)[:, 1:], levels(first)[:, 1:])
    assert {score.model_id for score in second.scores} == {"lstm-1", "lstm-2"}

    scoring.forget(0)  # the model of the levels is stored too
    third = scoring.score_and_correct(
        0, replace(low[-1], model_id="lstm-2", origin_ms=low[-1].origin_ms)
    )
    np.testing.assert_array_equal(levels(third), levels(second))
