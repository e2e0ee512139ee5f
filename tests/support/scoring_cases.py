"""A small history, its forecasts, and both implementations of the port of live scoring.

Axes: T = buckets, S = series, F = features, G = groups, H = horizon, Q = quantiles.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from benchmarks.calibration import ArrayReads
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import HOUR_MS
from stream.scoring.live_scoring import LiveScoring, ScoredForecast, ScoringReads
from stream.scoring.pending_forecasts import unpack
from stream.scoring.store_reads import StoreReads
from stream.settings import CalibrationSettings
from stream.state import keys
from stream.state.closed_buckets import closed_pages
from stream.state.port import ReadSideWrite
from tests.support.samples import START_MS

HORIZON = 4
SERIES = 30
SETTINGS = CalibrationSettings(min_closes=5)


def values(n_buckets: int = 80, *, seed: int = 3) -> NDArray[np.float32]:
    """Closed buckets [T, S, F] of counts, low to high volume."""
    rng = np.random.default_rng(seed)
    values_TSF = np.zeros((n_buckets, SERIES, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = rng.poisson(np.geomspace(0.05, 20, SERIES), (n_buckets, SERIES))
    return values_TSF


def array_reads() -> ArrayReads:
    """The port over arrays."""
    return ArrayReads(START_MS, HOUR_MS, values())


class RedisReads(StoreReads):
    """The port over Redis, with the writes of a worker."""

    def __init__(self, client: Redis, values_TSF: NDArray[np.float32]) -> None:
        super().__init__(client)
        self.client = client
        client.hset(keys.of(0, "meta"), "first_bucket_ms", str(START_MS))
        client.rpush(keys.of(0, "series"), *(f"s{at}" for at in range(SERIES)))
        for at, values_SF in enumerate(values_TSF):
            for path, page in closed_pages(START_MS + at * HOUR_MS, values_SF).items():
                client.set(keys.of(0, *path), page)

    def write(self, write: ReadSideWrite) -> None:
        """Apply the changes that a worker writes with a forecast."""
        for path, payload in write.puts.items():
            self.client.set(keys.of(0, *path), payload)
        for path, fields in write.fields.items():
            self.client.hset(keys.of(0, *path), mapping=cast("dict[Any, Any]", fields))
        for path in write.deletes:
            self.client.delete(keys.of(0, *path))


def forecasts(values_TSF: NDArray[np.float32], first: int, last: int) -> list[QuantileForecast]:
    """Forecasts of a seasonal naive after each bucket in [first, last)."""
    naive = SeasonalNaiveForecaster(horizon=HORIZON, bucket_ms=HOUR_MS)
    states = naive.new_states(SERIES)
    naive.warm_up(states, values_TSF[:first], START_MS)
    return [
        naive.step(states, values_TSF[at], START_MS + at * HOUR_MS) for at in range(first, last)
    ]


def run(scoring: LiveScoring, reads: Any, given: list[QuantileForecast]) -> list[ScoredForecast]:
    """Score, correct and write forecasts one after the other."""
    done = []
    for forecast in given:
        done.append(scoring.score_and_correct(0, forecast))
        reads.write(done[-1].write)
    return done


def require_same(left: ScoredForecast, right: ScoredForecast) -> None:
    """Fail if forecasts or writes differ."""
    np.testing.assert_array_equal(left.forecast.units_SHQ, right.forecast.units_SHQ)
    np.testing.assert_array_equal(left.forecast.cumulative_SHQ, right.forecast.cumulative_SHQ)
    assert left.calibrated == right.calibrated
    assert left.write.puts == right.write.puts
    assert left.write.fields == right.write.fields


def levels(scored: ScoredForecast) -> NDArray[np.float32]:
    """Levels [G, H, Q] that a forecast's units were published at."""
    [payload] = [blob for path, blob in scored.write.puts.items() if path[0] == "sent"]
    sample = unpack(payload)
    assert sample is not None
    return sample.levels[0]


def _check_ports(reads: ArrayReads, stored: StoreReads) -> tuple[ScoringReads, ScoringReads]:
    return reads, stored  # mypy checks both against the port
