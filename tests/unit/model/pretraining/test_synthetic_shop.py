"""Synthetic shops: repeatable, valid at every bucket width, and as varied as real ones."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from model.durations import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS, WEEK_MS
from model.errors import InvalidValues
from model.history import History
from model.inputs.carried_statistics import (
    ORDERS,
    PURCHASES,
    REVENUE,
    STOCK,
    STOCKOUT_SHARE,
    UNITS,
    VIEWS,
    VISITORS,
)
from model.inputs.plans import CLOSURE, PRICE, PROMOTION
from model.pretraining.synthetic.shop import DENSITY, SyntheticShop, synthetic_shop

WIDTHS_MS = (
    MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS, WEEK_MS, MONTH_MS,
)  # fmt: skip
SHOPS = 60


@cache
def shop_of(seed: int, bucket_ms: int = DAY_MS, buckets: int = 400) -> SyntheticShop:
    return synthetic_shop(bucket_ms=bucket_ms, buckets=buckets, series=16, seed=seed)


def daily() -> Iterator[History]:
    for seed in range(SHOPS):
        yield shop_of(seed).history


def is_plain(history: History) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([name.startswith("S") for name in history.series])


def test_a_seed_gives_one_shop() -> None:
    """Same seed, same shop; another seed, another shop."""
    first, again, other = (
        synthetic_shop(bucket_ms=HOUR_MS, buckets=200, series=8, seed=seed) for seed in (5, 5, 6)
    )

    assert np.array_equal(first.history.values_TSF, again.history.values_TSF)
    assert first.history.plans is not None
    assert again.history.plans is not None
    assert np.array_equal(first.history.plans.values_TNP, again.history.plans.values_TNP)
    assert np.array_equal(first.history.static_features_SX, again.history.static_features_SX)
    assert (first.country, first.history.start_ms) == (again.country, again.history.start_ms)
    assert not np.array_equal(first.history.values_TSF, other.history.values_TSF)


@pytest.mark.parametrize("bucket_ms", WIDTHS_MS)
def test_every_bucket_width_gives_valid_histories(bucket_ms: int) -> None:
    """Finite, not negative, of the right shapes, on the edges of buckets, between 1995 and 2024."""
    first_ms, last_ms = (
        int(np.datetime64(day, "ms").astype(np.int64)) for day in ("1994-12-01", "2025-01-01")
    )
    for seed in range(6):
        history = shop_of(seed, bucket_ms, 120).history

        assert history.values_TSF.shape == (120, 16, 11)
        assert history.values_TSF.dtype == np.float32
        assert np.isfinite(history.values_TSF).all()
        assert history.values_TSF.min() >= 0
        assert history.plans is not None
        assert history.plans.buckets == 120
        assert first_ms <= history.start_ms < last_ms
        assert history.start_ms % min(bucket_ms, DAY_MS) == 0 or bucket_ms == MONTH_MS
        assert history.start_ms % MONTH_MS == 0 or bucket_ms != MONTH_MS
    assert sum(shop_of(seed, bucket_ms, 120).history.volume().sum() > 0 for seed in range(6)) >= 2


@pytest.mark.parametrize(
    ("bucket_ms", "buckets"),
    [(7 * MINUTE_MS, 10), (0, 10), (-DAY_MS, 10), (DAY_MS + 1, 10), (DAY_MS, 1)],
)
def test_other_buckets_are_refused(bucket_ms: int, buckets: int) -> None:
    """A bucket that fits no day, or a single bucket, is an error that names it."""
    with pytest.raises(InvalidValues, match=f"{buckets} buckets of {bucket_ms} ms"):
        synthetic_shop(bucket_ms=bucket_ms, buckets=buckets, series=4, seed=0)


def test_most_shops_count_whole_units() -> None:
    """Whole units, but for a few shops that count money or weight."""
    whole = [bool((history.values_TSF[:, :, UNITS] % 1 == 0).all()) for history in daily()]

    assert 0.8 < np.mean(whole) < 1.0


def test_rollups_are_the_sums_of_their_series() -> None:
    """`total` is the sum of all series, of categories too, without a stock of its own."""
    checked = 0
    for history in daily():
        plain_S = is_plain(history)
        if plain_S.all():
            continue
        sums_TF = history.values_TSF[:, plain_S, :STOCK].sum(axis=1)
        at = history.series.index("total")
        np.testing.assert_allclose(history.values_TSF[:, at, :STOCK], sums_TF, rtol=1e-4)
        assert not history.values_TSF[:, ~plain_S, STOCK:].any()
        categories = [i for i, name in enumerate(history.series) if name.startswith("category:")]
        if categories:
            parts_TF = history.values_TSF[:, categories, :STOCK].sum(axis=1)
            np.testing.assert_allclose(parts_TF, sums_TF, rtol=1e-4)
            checked += 1
    assert checked > SHOPS / 4


def test_densities_span_the_range() -> None:
    """From a unit in a hundred buckets to thousands a bucket, over decades within a shop."""
    means, spreads = [], []
    for history in daily():
        mean_S = history.values_TSF[:, is_plain(history), UNITS].mean(axis=0)
        means += mean_S.tolist()
        found = mean_S[mean_S > 0]
        spreads.append(np.log10(found.max() / found.min()) if found.size else 0.0)

    low, high = np.quantile([mean for mean in means if mean > 0], (0.02, 0.98))
    assert low < 10 * DENSITY[0]
    assert high > DENSITY[1] / 20
    assert np.median(spreads) > 0.8


def test_closed_weekdays_are_zero_days() -> None:
    """In some shops a day of the week never sells, though the others do."""
    closed = []
    for history in daily():
        days_T = history.start_ms // DAY_MS + np.arange(history.buckets)
        units_TS = history.values_TSF[:, is_plain(history), UNITS]
        by_day_WS = np.stack([units_TS[(days_T + 3) % 7 == day].sum(axis=0) for day in range(7)])
        dense_S = (by_day_WS > 100).sum(axis=0) >= 3
        closed += (by_day_WS[:, dense_S] == 0).any(axis=0).tolist()

    assert len(closed) > 200
    assert 0.1 < np.mean(closed) < 0.5


def test_announced_closures_have_no_demand() -> None:
    """A bucket that a plan closes sells nothing."""
    closed = 0
    for history in daily():
        assert history.plans is not None
        shut_TS = history.plans.dense(len(history.series))[:, :, CLOSURE] == 1
        assert not history.values_TSF[shut_TS][:, UNITS].any()
        closed += int(shut_TS.any())

    assert closed > 3


def test_announced_promotions_lift_the_demand() -> None:
    """Over all shops, series sell more on promotion than before and after."""
    lifts = []
    for history in daily():
        assert history.plans is not None
        promoted_TS = history.plans.dense(len(history.series))[:, :, PROMOTION] > 0
        units_TS = history.values_TSF[:, :, UNITS]
        for s in np.flatnonzero(promoted_TS.any(axis=0) & (units_TS.mean(axis=0) > 1)):
            on_T = promoted_TS[:, s]
            lifts.append(
                np.log((units_TS[on_T, s].mean() + 0.1) / (units_TS[~on_T, s].mean() + 0.1))
            )

    assert len(lifts) > 50
    assert 0.1 < np.median(lifts) < 1.5


def test_announced_prices_are_the_prices_paid() -> None:
    """A bucket's revenue is its units at the announced price, unless a discount lowers it."""
    checked = 0
    for history in daily():
        assert history.plans is not None
        plans_TSP = history.plans.dense(len(history.series))
        units_TS, money_TS = (history.values_TSF[:, :, column] for column in (UNITS, REVENUE))
        returned_TS = history.values_TSF[:, :, 1] > 0
        at_TS = (plans_TSP[:, :, PRICE] > 0) & (units_TS > 0) & (money_TS > 0) & ~returned_TS
        paid = money_TS[at_TS] / units_TS[at_TS]
        assert (paid <= plans_TSP[at_TS][:, PRICE] * 1.001).all()
        checked += int(at_TS.sum())
    assert checked > 100


def test_sold_out_buckets_are_marked() -> None:
    """Where the stock is known, its end plus one is at least one, and an empty one sold out."""
    stocked = 0
    for history in daily():
        plain_S = is_plain(history)
        stock_TS = history.values_TSF[:, plain_S, STOCK]
        share_TS = history.values_TSF[:, plain_S, STOCKOUT_SHARE]
        assert share_TS.max(initial=0) <= 1
        if not stock_TS.any():
            assert not share_TS.any()
            continue
        stocked += 1
        assert (stock_TS >= 1).all()
        assert (stock_TS[share_TS > 0] == 1).all()
    assert 3 < stocked < SHOPS / 2


def test_shops_record_different_columns() -> None:
    """Many have units alone; clicks come with purchases at most as many as orders and visitors."""
    found = np.array([history.values_TSF.any(axis=(0, 1)) for history in daily()])
    for history in daily():
        columns = history.values_TSF
        if columns[:, :, VISITORS].any():
            assert (columns[:, :, VISITORS] >= columns[:, :, PURCHASES]).all()
            assert (columns[:, :, VIEWS] >= columns[:, :, VISITORS]).all()

    for column, low, high in ((ORDERS, 0.3, 0.8), (VISITORS, 0.15, 0.6), (STOCK, 0.05, 0.5)):
        assert low < found[:, column].mean() < high


def test_some_shops_have_a_known_country() -> None:
    """Countries vary, and are unknown for some."""
    countries = [shop_of(seed).country for seed in range(SHOPS)]

    assert len(set(countries)) > 15
    assert 0.1 < np.mean([country is None for country in countries]) < 0.6


@pytest.mark.parametrize("bucket_ms", WIDTHS_MS)
def test_the_smallest_shops_are_shops(bucket_ms: int) -> None:
    """A single series in two buckets, a few series in three."""
    for seed in range(30):
        for buckets, series in ((2, 1), (3, 4)):
            history = synthetic_shop(
                bucket_ms=bucket_ms, buckets=buckets, series=series, seed=seed
            ).history
            assert history.values_TSF.shape == (buckets, series, 11)
            assert np.isfinite(history.values_TSF).all()
