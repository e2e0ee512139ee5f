"""The life of a forecast after it was sent: waited for, scored, learned from, and survived."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis

from benchmarks.calibration import ArrayReads
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.score_sums import ROLLUP, score_of
from stream.features.definitions import STOCK, STOCKOUT_SHARE
from stream.scoring.calibration_state import decode
from stream.scoring.live_scoring import LiveScoring, ScoredForecast, ScoringReads
from stream.scoring.pending_forecasts import pack, sampled, unpack
from stream.scoring.store_reads import StoreReads
from stream.settings import CalibrationSettings
from stream.state import keys
from stream.state.closed_buckets import closed_pages
from stream.state.keys import KEEP_DAYS, ROLLUPS
from stream.state.port import ReadSideWrite

START = 1_317_600_000_000
HORIZON = 4
SERIES = 30
SETTINGS = CalibrationSettings(min_closes=5)


def values(n_buckets: int = 80, *, seed: int = 3) -> NDArray[np.float32]:
    """Closed buckets [T, S, F] of counts, low to high volume."""
    rng = np.random.default_rng(seed)
    values_TSF = np.zeros((n_buckets, SERIES, len(FEATURE_NAMES)), np.float32)
    values_TSF[:, :, 0] = rng.poisson(np.geomspace(0.05, 20, SERIES), (n_buckets, SERIES))
    return values_TSF


class RedisReads(StoreReads):
    """The store's reads with the two writes the worker does."""

    def __init__(self, client: Redis, values_TSF: NDArray[np.float32]) -> None:
        super().__init__(client)
        self.client = client
        client.hset(keys.of(0, "meta"), "first_bucket_ms", str(START))
        client.rpush(keys.of(0, "series"), *(f"s{at}" for at in range(SERIES)))
        for at, values_SF in enumerate(values_TSF):
            for path, page in closed_pages(START + at * HOUR_MS, values_SF).items():
                client.set(keys.of(0, *path), page)

    def write(self, block: ReadSideWrite) -> None:
        for path, payload in block.puts.items():
            self.client.set(keys.of(0, *path), payload)
        for path, fields in block.fields.items():
            self.client.hset(keys.of(0, *path), mapping=cast("dict[Any, Any]", fields))
        for path in block.deletes:
            self.client.delete(keys.of(0, *path))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def reads(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both implementations of the port, over the same history."""
    if request.param == "memory":
        yield ArrayReads(START, HOUR_MS, values())
    else:
        yield RedisReads(request.getfixturevalue("redis_client"), values())


def forecasts(values_TSF: NDArray[np.float32], first: int, last: int) -> list[QuantileForecast]:
    """What a seasonal naive says after each bucket from `first` to `last`."""
    naive = SeasonalNaiveForecaster(horizon=HORIZON, bucket_ms=HOUR_MS)
    states = naive.new_states(SERIES)
    naive.warm_up(states, values_TSF[:first], START)
    return [naive.step(states, values_TSF[at], START + at * HOUR_MS) for at in range(first, last)]


def run(accuracy: LiveScoring, reads: Any, given: list[QuantileForecast]) -> list[ScoredForecast]:
    """Settle and write one forecast after the other."""
    done = []
    for forecast in given:
        done.append(accuracy.score_and_correct(0, forecast))
        reads.write(done[-1].block)
    return done


def n_labels(settled: ScoredForecast) -> int:
    """Labels scored with a close."""
    return sum(score_of(one.sums_VHK).labels for one in settled.scored)


def same(left: ScoredForecast, right: ScoredForecast) -> None:
    np.testing.assert_array_equal(left.forecast.units_SHQ, right.forecast.units_SHQ)
    np.testing.assert_array_equal(left.forecast.cumulative_SHQ, right.forecast.cumulative_SHQ)
    assert left.calibrated == right.calibrated
    assert left.block.puts == right.block.puts
    assert left.block.fields == right.block.fields


def test_a_successor_goes_on_exactly_where_the_owner_was(reads: Any) -> None:
    """The owner is gone after any close: levels, what waits and the day's sums are in the store."""
    given = forecasts(values(), 30, 44)
    owner, successor = LiveScoring(SETTINGS, reads), LiveScoring(SETTINGS, reads)
    run(owner, reads, given[:10])

    for forecast in given[10:]:
        expected = owner.score_and_correct(0, forecast)
        same(successor.score_and_correct(0, forecast), expected)
        reads.write(expected.block)
        successor.forget(0)  # each close has a new owner


def test_both_stores_lead_to_the_same_scores(redis_client: Redis) -> None:
    given = forecasts(values(), 30, 50)
    memory, redis = ArrayReads(START, HOUR_MS, values()), RedisReads(redis_client, values())

    for left, right in zip(
        run(LiveScoring(SETTINGS, memory), memory, given),
        run(LiveScoring(SETTINGS, redis), redis, given),
        strict=True,
    ):
        same(left, right)


def test_each_step_is_scored_once_when_its_bucket_has_closed() -> None:
    reads = ArrayReads(START, HOUR_MS, values())
    done = run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 40))

    labels = [n_labels(settled) for settled in done[1:]]
    assert labels == [SERIES * min(at, HORIZON) for at in range(1, 10)]


def test_buckets_that_closed_at_once_are_scored_one_by_one() -> None:
    """After a backlog only the newest origin was sent; all that had been sent is scored."""
    reads = ArrayReads(START, HOUR_MS, values())
    given = forecasts(values(), 30, 40)

    done = run(LiveScoring(SETTINGS, reads), reads, [given[0], given[1], given[7]])

    starts = [one.bucket_start_ms for one in done[-1].scored]
    first = given[1].origin_ms
    assert starts == [first + at * HOUR_MS for at in range(HORIZON)]


def test_what_was_published_is_what_was_scored() -> None:
    """Sums are of the corrected quantiles, at the levels that held when they were sent."""
    reads = ArrayReads(START, HOUR_MS, values())
    settings = SETTINGS.model_copy(update={"rate": 0.3})
    done = run(LiveScoring(settings, reads), reads, forecasts(values(), 30, 60))

    sent, scored = done[-2].forecast, done[-1].scored[0].sums_VHK
    actual_S = values()[59, :, 0]
    error = np.abs(actual_S[:, None] - sent.units_SHQ[:, 0])
    q_Q = np.array(sent.quantiles)
    loss_S = np.where(
        actual_S[:, None] > sent.units_SHQ[:, 0], q_Q * error, (1 - q_Q) * error
    ).mean(axis=1)
    assert scored[:, 0, 3].sum() == pytest.approx(loss_S.sum(), rel=1e-3)
    assert (done[-1].forecast.units_SHQ != forecasts(values(), 59, 60)[0].units_SHQ).any()


def test_off_leaves_forecasts_as_they_are_and_scores_them() -> None:
    reads = ArrayReads(START, HOUR_MS, values())
    given = forecasts(values(), 30, 50)

    done = run(LiveScoring(SETTINGS.model_copy(update={"enabled": False}), reads), reads, given)

    for settled, forecast in zip(done, given, strict=True):
        assert settled.forecast is forecast
        assert not settled.calibrated
    assert done[-1].scored


def test_a_forecast_is_calibrated_once_every_step_has_enough_labels() -> None:
    reads = ArrayReads(START, HOUR_MS, values())

    flags = [
        one.calibrated
        for one in run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 45))
    ]

    first = flags.index(True)
    assert first == HORIZON + SETTINGS.min_closes - 1  # the last step's fifth label
    assert all(flags[first:])


def test_the_corrected_forecast_keeps_its_promises() -> None:
    """Rising with q, never negative, cumulative rising with h and starting at the first bucket."""
    reads = ArrayReads(START, HOUR_MS, values())
    settings = SETTINGS.model_copy(update={"rate": 0.5})
    for settled in run(LiveScoring(settings, reads), reads, forecasts(values(), 30, 70)):
        units, sums = settled.forecast.units_SHQ, settled.forecast.cumulative_SHQ
        assert (np.diff(units, axis=2) >= 0).all()
        assert (np.diff(sums, axis=2) >= 0).all()
        assert (np.diff(sums, axis=1) >= 0).all()
        assert units.min() >= 0
        np.testing.assert_array_equal(sums[:, 0], units[:, 0])


def test_buckets_out_of_stock_are_no_labels() -> None:
    """What could not be sold says nothing about the demand, of its bucket and of sums over it."""
    plain, short = values(), values()
    short[40, :, STOCK] = 1.0
    short[40, :, STOCKOUT_SHARE] = 1.0
    short[40, :, 0] = 0.0
    given = forecasts(plain, 30, 44)
    reads = ArrayReads(START, HOUR_MS, short)

    done = run(LiveScoring(SETTINGS, reads), reads, given)

    counts = [n_labels(settled) for settled in done[8:14]]
    assert counts == [120, 120, 0, 120, 120, 120]
    [payload] = reads.blobs(0, [("calibration",)])
    stored = decode(payload or b"", given[-1], rate=SETTINGS.rate)
    assert stored is not None
    [family] = stored[0].families.values()
    # of sums over h + 1 buckets the last h + 1 forecasts before the gap are lost as well
    assert family.units.closes_GH.max(axis=0).tolist() == [12, 11, 10, 9]
    assert family.cumulative.closes_GH.max(axis=0).tolist() == [12, 10, 8, 6]


def test_what_can_no_longer_come_due_is_dropped_from_the_store() -> None:
    reads = ArrayReads(START, HOUR_MS, values())
    run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 60))

    waiting = [path for path in reads.stored if path[0] == "sent"]
    assert len(waiting) == HORIZON


def test_scores_of_long_ago_are_deleted() -> None:
    reads = ArrayReads(START, HOUR_MS, values())
    done = run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 31))

    day = done[0].forecast.origin_ms // DAY_MS * DAY_MS
    assert ("scores", day - KEEP_DAYS * DAY_MS) in done[0].block.deletes


def test_a_family_of_models_has_levels_of_its_own() -> None:
    """A champion after the fallback starts at nominal levels; the fallback's are kept for it."""
    reads = ArrayReads(START, HOUR_MS, values())
    settings = SETTINGS.model_copy(update={"rate": 0.3})
    accuracy = LiveScoring(settings, reads)
    given = forecasts(values(), 30, 60)
    run(accuracy, reads, given[:-1])

    other = accuracy.score_and_correct(0, replace(given[-1], model_id="lstm-1"))
    again = accuracy.score_and_correct(0, given[-1])

    np.testing.assert_allclose(other.forecast.units_SHQ, given[-1].units_SHQ)
    assert (again.forecast.units_SHQ != given[-1].units_SHQ).any()


def levels(settled: ScoredForecast) -> NDArray[np.float32]:
    """Levels [G, H, Q] that a forecast's units were published at."""
    [payload] = [blob for path, blob in settled.block.puts.items() if path[0] == "sent"]
    sent = unpack(payload)
    assert sent is not None
    return sent.levels[0]


def test_a_new_model_inherits_what_is_usual_and_learns_from_its_own_forecasts(reads: Any) -> None:
    """What a drift had done to the levels of the one before would spoil a model that knows it."""
    settings = SETTINGS.model_copy(update={"rate": 0.3})
    accuracy = LiveScoring(settings, reads)
    low = [
        replace(
            forecast,
            model_id="lstm-1",
            units_SHQ=forecast.units_SHQ * np.float32(0.2),
            cumulative_SHQ=forecast.cumulative_SHQ * np.float32(0.2),
        )
        for forecast in forecasts(values(), 30, 62)
    ]
    drifted = run(accuracy, reads, low[:30])[-1]
    nominal_Q = np.asarray(low[0].quantiles, np.float32)
    assert (levels(drifted) - nominal_Q).max() > 0.2

    first, second = run(
        accuracy, reads, [replace(forecast, model_id="lstm-2") for forecast in low[30:]]
    )
    assert np.abs(levels(first) - nominal_Q).max() <= 0.1 + 1e-6
    assert (levels(first) != nominal_Q).any()
    assert first.calibrated == drifted.calibrated
    # only the new model's first step has come due since; the old one's labels are scored alone
    assert (levels(second)[:, 0] != levels(first)[:, 0]).any()
    np.testing.assert_array_equal(levels(second)[:, 1:], levels(first)[:, 1:])
    assert {one.model_id for one in second.scored} == {"lstm-1", "lstm-2"}

    accuracy.forget(0)  # and the store knows whose levels they are
    third = accuracy.score_and_correct(
        0, replace(low[-1], model_id="lstm-2", origin_ms=low[-1].origin_ms)
    )
    np.testing.assert_array_equal(levels(third), levels(second))


def test_a_store_of_another_shape_is_started_over() -> None:
    """Another horizon than the levels were learned for."""
    reads = ArrayReads(START, HOUR_MS, values())
    run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 40))
    shorter = [
        replace(
            forecast,
            units_SHQ=forecast.units_SHQ[:, :2],
            cumulative_SHQ=forecast.cumulative_SHQ[:, :2],
        )
        for forecast in forecasts(values(), 40, 44)
    ]

    done = run(LiveScoring(SETTINGS, reads), reads, shorter)

    assert not done[0].scored
    assert done[-1].scored


def test_roll_ups_are_a_class_of_their_own() -> None:
    reads = ArrayReads(START, HOUR_MS, values())
    accuracy = LiveScoring(SETTINGS, reads)

    done = [
        accuracy.score_and_correct(ROLLUPS, forecast) for forecast in forecasts(values(), 30, 33)
    ]

    sums_VHK = done[-1].scored[0].sums_VHK
    assert sums_VHK[ROLLUP].any()
    assert not sums_VHK[:ROLLUP].any()


def test_a_sample_stands_for_its_class() -> None:
    """Of each class as many series wait as the setting says, and their weights make up for it."""
    rng = np.random.default_rng(0)
    block = np.sort(rng.gamma(1, 2, (5_000, HORIZON, 9)).astype(np.float32), axis=2)
    forecast = QuantileForecast(0, HOUR_MS, tuple(np.arange(1, 10) / 10), block, block, "m")
    volume_S = np.repeat(np.array([0, 1, 2], np.uint8), (4_900, 90, 10))
    levels = (np.zeros((8, HORIZON, 9), np.float32), np.zeros((4, HORIZON, 9), np.float32))

    sent = sampled(forecast, volume_S, levels, most=50)

    assert np.bincount(sent.volume_N).tolist() == [50, 50, 10]
    assert np.bincount(sent.volume_N, sent.weight_N).round().tolist() == [4_900, 90, 10]
    again = unpack(pack(sent))
    assert again is not None
    np.testing.assert_array_equal(again.units.at(2), sent.units.at(2))
    np.testing.assert_allclose(again.units.at(2), block[sent.slot_N, 2], atol=1e-3)
    later = sampled(replace(forecast, origin_ms=HOUR_MS), volume_S, levels, most=50)
    np.testing.assert_array_equal(later.slot_N, sent.slot_N)


def _check_ports(reads: ArrayReads, stored: StoreReads) -> tuple[ScoringReads, ScoringReads]:
    return reads, stored  # mypy holds both to the port
