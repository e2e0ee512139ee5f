"""A published forecast is kept until its buckets close, scored, and corrects the next ones."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.calibration import ArrayReads
from model.config import DECILES
from model.contract import QuantileForecast
from model.durations import DAY_MS, HOUR_MS
from model.evaluation.score_sums import ROLLUP, score_of
from stream.features.definitions import STOCK, STOCKOUT_SHARE
from stream.scoring.calibration_state import decode
from stream.scoring.live_scoring import LiveScoring, ScoredForecast
from stream.scoring.pending_forecasts import pack, sample_forecast, unpack
from stream.state.keys import KEEP_DAYS, ROLLUPS
from tests.support.model_cases import require_coherent
from tests.support.samples import START_MS
from tests.support.scoring_cases import (
    HORIZON,
    SERIES,
    SETTINGS,
    array_reads,
    forecasts,
    run,
    values,
)


def n_labels(scored: ScoredForecast) -> int:
    """Number of labels scored with a close."""
    return sum(score_of(score.sums_VHK).labels for score in scored.scores)


def test_each_step_is_scored_once_when_its_bucket_has_closed() -> None:
    reads = array_reads()
    done = run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 40))

    labels = [n_labels(scored) for scored in done[1:]]
    assert labels == [SERIES * min(at, HORIZON) for at in range(1, 10)]


def test_buckets_that_closed_at_once_are_scored_one_by_one() -> None:
    """After a backlog only the newest origin is published; every published forecast is scored."""
    reads = array_reads()
    given = forecasts(values(), 30, 40)

    done = run(LiveScoring(SETTINGS, reads), reads, [given[0], given[1], given[7]])

    starts = [score.bucket_start_ms for score in done[-1].scores]
    first = given[1].origin_ms
    assert starts == [first + at * HOUR_MS for at in range(HORIZON)]


def test_corrected_forecasts_are_coherent() -> None:
    """Levels of sums and of buckets are corrected apart; what is published agrees."""
    reads = array_reads()
    settings = SETTINGS.model_copy(update={"rate": 0.5})
    for scored in run(LiveScoring(settings, reads), reads, forecasts(values(), 30, 60)):
        require_coherent(scored.forecast)


def test_what_was_published_is_what_was_scored() -> None:
    """Sums are of the corrected quantiles, at the levels of their publication."""
    reads = array_reads()
    settings = SETTINGS.model_copy(update={"rate": 0.3})
    done = run(LiveScoring(settings, reads), reads, forecasts(values(), 30, 60))

    published, sums_VHK = done[-2].forecast, done[-1].scores[0].sums_VHK
    actual_S = values()[59, :, 0]
    error = np.abs(actual_S[:, None] - published.units_SHQ[:, 0])
    q_Q = np.array(published.quantiles)
    loss_S = np.where(
        actual_S[:, None] > published.units_SHQ[:, 0], q_Q * error, (1 - q_Q) * error
    ).mean(axis=1)
    assert sums_VHK[:, 0, 3].sum() == pytest.approx(loss_S.sum(), rel=1e-3)
    assert (done[-1].forecast.units_SHQ != forecasts(values(), 59, 60)[0].units_SHQ).any()


def test_calibration_off_only_rounds_forecasts_and_scores_them() -> None:
    reads = array_reads()
    given = forecasts(values(), 30, 50)

    done = run(LiveScoring(SETTINGS.model_copy(update={"enabled": False}), reads), reads, given)

    for scored, forecast in zip(done, given, strict=True):
        whole_SHQ = np.floor(forecast.units_SHQ + np.float32(0.5))
        np.testing.assert_array_equal(scored.forecast.units_SHQ, whole_SHQ)
        np.testing.assert_array_equal(scored.forecast.mean_SH, forecast.mean_SH)
        assert not scored.calibrated
    assert done[-1].scores


def test_a_forecast_is_calibrated_once_every_step_has_enough_labels() -> None:
    reads = array_reads()

    flags = [
        scored.calibrated
        for scored in run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 45))
    ]

    first = flags.index(True)
    assert first == HORIZON + SETTINGS.min_closes - 1  # the last step's fifth label
    assert all(flags[first:])


def test_the_corrected_forecast_is_a_valid_forecast() -> None:
    """Not negative, rising with q; cumulative units rise with h and start at the first bucket."""
    reads = array_reads()
    settings = SETTINGS.model_copy(update={"rate": 0.5})
    for scored in run(LiveScoring(settings, reads), reads, forecasts(values(), 30, 70)):
        units, sums = scored.forecast.units_SHQ, scored.forecast.cumulative_SHQ
        assert (np.diff(units, axis=2) >= 0).all()
        assert (np.diff(sums, axis=2) >= 0).all()
        assert (np.diff(sums, axis=1) >= 0).all()
        assert units.min() >= 0
        np.testing.assert_array_equal(sums[:, 0], units[:, 0])


def test_buckets_out_of_stock_are_no_labels() -> None:
    """Censored sales do not show the demand, neither of the bucket nor of sums that include it."""
    plain, short = values(), values()
    short[40, :, STOCK] = 1.0
    short[40, :, STOCKOUT_SHARE] = 1.0
    short[40, :, 0] = 0.0
    given = forecasts(plain, 30, 44)
    reads = ArrayReads(START_MS, HOUR_MS, short)

    done = run(LiveScoring(SETTINGS, reads), reads, given)

    counts = [n_labels(scored) for scored in done[8:14]]
    assert counts == [120, 120, 0, 120, 120, 120]
    [payload] = reads.blobs(0, [("calibration",)])
    stored = decode(payload or b"", given[-1], rate=SETTINGS.rate)
    assert stored is not None
    [calibration] = stored[0].levels.values()
    # sums over h + 1 buckets lose the last h + 1 forecasts before the gap as well
    assert calibration.units.closes_GH.max(axis=0).tolist() == [12, 11, 10, 9]
    assert calibration.cumulative.closes_GH.max(axis=0).tolist() == [12, 10, 8, 6]


def test_forecasts_scored_at_every_step_are_deleted_from_the_store() -> None:
    reads = array_reads()
    run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 60))

    pending = [path for path in reads.stored if path[0] == "sent"]
    assert len(pending) == HORIZON


def test_scores_beyond_retention_are_deleted() -> None:
    reads = array_reads()
    done = run(LiveScoring(SETTINGS, reads), reads, forecasts(values(), 30, 31))

    day = done[0].forecast.origin_ms // DAY_MS * DAY_MS
    assert ("scores", day - KEEP_DAYS * DAY_MS) in done[0].write.deletes


def test_each_model_family_has_its_own_levels() -> None:
    """A champion after the fallback starts at nominal levels; the fallback keeps its own."""
    reads = array_reads()
    settings = SETTINGS.model_copy(update={"rate": 0.3})
    scoring = LiveScoring(settings, reads)
    given = forecasts(values(), 30, 60)
    run(scoring, reads, given[:-1])

    other = scoring.score_and_correct(0, replace(given[-1], model_id="lstm-1"))
    again = scoring.score_and_correct(0, given[-1])

    whole_SHQ = np.floor(given[-1].units_SHQ + np.float32(0.5))
    np.testing.assert_array_equal(other.forecast.units_SHQ, whole_SHQ)
    assert (again.forecast.units_SHQ != given[-1].units_SHQ).any()


def test_a_stored_state_of_another_shape_is_discarded() -> None:
    """The levels were learned for another horizon."""
    reads = array_reads()
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

    assert not done[0].scores
    assert done[-1].scores


def test_roll_ups_have_their_own_volume_class() -> None:
    reads = array_reads()
    scoring = LiveScoring(SETTINGS, reads)

    done = [
        scoring.score_and_correct(ROLLUPS, forecast) for forecast in forecasts(values(), 30, 33)
    ]

    sums_VHK = done[-1].scores[0].sums_VHK
    assert sums_VHK[ROLLUP].any()
    assert not sums_VHK[:ROLLUP].any()


def test_a_sample_represents_its_volume_class() -> None:
    """Each class has as many series as the setting allows; their weights add up to the class."""
    rng = np.random.default_rng(0)
    block = np.sort(rng.gamma(1, 2, (5_000, HORIZON, 9)).astype(np.float32), axis=2)
    forecast = QuantileForecast(0, HOUR_MS, DECILES, block, block, block[..., 4], "m")
    volume_S = np.repeat(np.array([0, 1, 2], np.uint8), (4_900, 90, 10))
    levels = (np.zeros((8, HORIZON, 9), np.float32), np.zeros((4, HORIZON, 9), np.float32))

    sample = sample_forecast(forecast, volume_S, levels, max_per_class=50)

    assert np.bincount(sample.volume_N).tolist() == [50, 50, 10]
    assert np.bincount(sample.volume_N, sample.weight_N).round().tolist() == [4_900, 90, 10]
    again = unpack(pack(sample))
    assert again is not None
    np.testing.assert_array_equal(again.units.at(2), sample.units.at(2))
    np.testing.assert_allclose(again.units.at(2), block[sample.slot_N, 2], atol=1e-3)
    next_forecast = replace(forecast, origin_ms=HOUR_MS)
    later = sample_forecast(next_forecast, volume_S, levels, max_per_class=50)
    np.testing.assert_array_equal(later.slot_N, sample.slot_N)
