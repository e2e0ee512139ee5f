"""Sliding sums of the movers equal a plain recount."""

from typing import Any

import numpy as np

from model.durations import DAY_MS, HOUR_MS
from stream.readside.rolling.movers import SlidingUnits


def test_sliding_sums_equal_sums_over_the_window() -> None:
    """After any run of buckets, both windows cover exactly the buckets that start in them."""
    rng = np.random.default_rng(5)
    sums = SlidingUnits()
    blocks: list[tuple[int, Any]] = []
    for hour in range(24 * 12):
        block = rng.poisson(0.4, 6 + hour // 40).astype(np.float32)
        blocks.append((hour * HOUR_MS, block))
        sums.add(hour * HOUR_MS, block)
        end = (hour + 1) * HOUR_MS
        sums.slide(end_ms=end)
        if hour % 31 == 0:
            for window, low, high in ((sums.day_S, 1, 0), (sums.base_S, 8, 1)):
                expected = np.zeros(len(window))
                for start, units in blocks:
                    if end - low * DAY_MS <= start < end - high * DAY_MS:
                        expected[: len(units)] += units
                assert window.tolist() == expected.tolist()
