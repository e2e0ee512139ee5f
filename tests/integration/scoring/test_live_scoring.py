"""Live scoring over a real store."""

from redis import Redis

from stream.scoring.live_scoring import LiveScoring
from tests.support.scoring_cases import (
    SETTINGS,
    RedisReads,
    array_reads,
    forecasts,
    require_same,
    run,
    values,
)


def test_both_stores_lead_to_the_same_scores(redis_client: Redis) -> None:
    given = forecasts(values(), 30, 50)
    memory, redis = array_reads(), RedisReads(redis_client, values())

    for left, right in zip(
        run(LiveScoring(SETTINGS, memory), memory, given),
        run(LiveScoring(SETTINGS, redis), redis, given),
        strict=True,
    ):
        require_same(left, right)
