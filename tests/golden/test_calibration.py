"""Live coverage over the shipped orders: in the documented range only with calibration."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.calibration import WARM_UP, ArrayReads, replayed, sample_history
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.durations import HOUR_MS
from model.evaluation.score_sums import ROLLUP, score_of
from stream.settings import CalibrationSettings
from stream.state.keys import ROLLUPS

DAYS = 30

Sums = NDArray[np.float64]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores() -> Mapping[bool, Sums]:
    """Sums [H, K] of the roll-ups after the first tenth, calibration on and off."""
    history = sample_history()
    slots = [slot for slot, sku in enumerate(history.skus) if not sku]
    reads = ArrayReads(history.start_ms, HOUR_MS, history.dense(slots))
    last = WARM_UP + DAYS * 24
    found = {}
    for enabled in (True, False):
        naive = SeasonalNaiveForecaster(horizon=24, bucket_ms=HOUR_MS)
        settings = CalibrationSettings(enabled=enabled)
        replay = replayed(naive, reads, settings, tag=ROLLUPS, first=WARM_UP, last=last)
        found[enabled] = sum(
            (sums[ROLLUP] for at, sums in replay if at >= WARM_UP + DAYS * 24 // 10),
            np.zeros(1),
        )
    return found


def test_the_band_reaches_its_coverage_at_every_step(scores: Mapping[bool, Sums]) -> None:
    covers = [score_of(sums_K).coverage for sums_K in scores[True]]

    assert all(0.78 <= (cover or 0) <= 0.82 for cover in covers), covers


def test_without_calibration_the_coverage_is_missed(scores: Mapping[bool, Sums]) -> None:
    covers = [score_of(sums_K).coverage for sums_K in scores[False]]

    assert all((cover or 0) < 0.76 for cover in covers), covers


def test_calibration_improves_the_forecasts(scores: Mapping[bool, Sums]) -> None:
    corrected, plain = score_of(scores[True]), score_of(scores[False])

    assert (corrected.wql or 9) < 0.97 * (plain.wql or 0)
