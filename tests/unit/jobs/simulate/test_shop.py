"""In the simulated shop, true demand, stock and records are consistent."""

import numpy as np
import polars as pl
import pytest

from model.durations import DAY_MS, HOUR_MS
from stream.jobs.files.event_files import Schema
from stream.jobs.simulate.shop import Hour, Shop

START_MS = 1_735_689_600_000  # 2025-01-01T00:00Z, a Wednesday
DAYS = 21


def shop(seed: int = 3, start_ms: int = START_MS) -> Shop:
    return Shop(seed=seed, products=60, orders_per_hour=80.0, start_ms=start_ms)


def run(hours: int, seed: int = 3) -> list[Hour]:
    world = shop(seed)
    return [world.next_hour() for _ in range(hours)]


@pytest.fixture(scope="module")
def month() -> list[Hour]:
    return run(24 * DAYS)


@pytest.fixture(scope="module")
def truth(month: list[Hour]) -> pl.DataFrame:
    return pl.concat([hour.truth for hour in month])


def test_the_same_seed_gives_the_same_shop_another_seed_another() -> None:
    once, twice, other = run(30), run(30), run(30, seed=4)

    for first, second in zip(once, twice, strict=True):
        assert first.orders.equals(second.orders)
        assert first.clicks.equals(second.clicks)
        assert first.truth.equals(second.truth)
        assert (first.plans, first.inventory) == (second.plans, second.inventory)
    assert not once[12].orders.equals(other[12].orders)


@pytest.mark.slow
def test_events_are_within_their_hour_sorted_with_unique_ids(month: list[Hour]) -> None:
    for hour in month:
        for events in (hour.orders, hour.clicks):
            times = events["ts"]
            assert times.is_sorted()
            assert times.is_between(hour.start_ms, hour.start_ms + HOUR_MS, closed="left").all()
    ids = pl.concat([hour.orders["event_id"] for hour in month])
    assert ids.is_unique().all()


def test_order_lines_add_up_to_the_true_sales_and_returns(
    month: list[Hour], truth: pl.DataFrame
) -> None:
    lines = pl.concat([hour.orders for hour in month])
    quantity = pl.col("quantity")
    counted = lines.group_by((pl.col("ts") // HOUR_MS * HOUR_MS).alias("start_ms"), "sku").agg(
        sold=quantity.filter(quantity > 0).sum(), returned=-quantity.filter(quantity < 0).sum()
    )
    happened = truth.filter((pl.col("sold") > 0) | (pl.col("returned") > 0))
    keys = ["start_ms", "sku"]
    columns = [*keys, "sold", "returned"]

    assert counted.select(columns).sort(keys).equals(happened.select(columns).sort(keys))


def test_demand_is_sold_or_lost_and_lost_only_where_stock_runs_out(truth: pl.DataFrame) -> None:
    assert (truth["demand"] == truth["sold"] + truth["lost"]).all()
    assert (truth["on_hand"] >= 0).all()
    lost = truth.filter(pl.col("lost") > 0)
    assert lost.height > 20, "some products sell out"
    assert (lost["on_hand"] < 40).all()
    assert int(truth["lost"].sum()) < 0.2 * int(truth["demand"].sum())


def test_returns_are_of_lines_sold_before_at_their_price(month: list[Hour]) -> None:
    lines = pl.concat([hour.orders for hour in month])
    back = lines.filter(pl.col("quantity") < 0)
    sold = lines.filter(pl.col("quantity") > 0)
    pairs = back.join(sold, on="sku", suffix="_sold").filter(
        (pl.col("quantity") == -pl.col("quantity_sold"))
        & (pl.col("unit_price") == pl.col("unit_price_sold"))
        & ((pl.col("ts") - pl.col("ts_sold")).is_between(DAY_MS, 10 * DAY_MS))
    )

    assert 0.02 < back.height / sold.height < 0.06
    assert set(back["event_id"]) == set(pairs["event_id"])


def test_promotions_are_announced_ahead_and_sell_more_at_a_lower_price(
    month: list[Hour], truth: pl.DataFrame
) -> None:
    plans = [(hour.start_ms, plan) for hour in month for plan in hour.plans]
    assert len(plans) > 10
    ratios = []
    for announced_ms, plan in plans:
        assert plan["start"] - announced_ms >= 2 * DAY_MS
        of_sku = truth.filter(pl.col("sku") == plan["sku"])
        during = of_sku.filter(pl.col("start_ms").is_between(plan["start"], plan["end"], "left"))
        if during.height < 24 or (during["rate"] == 0).all():
            continue
        assert (during["discount"] >= plan["value"]).all()
        before = of_sku.filter(pl.col("start_ms") < plan["start"])
        ratios.append(np.mean(during["rate"].to_numpy()) / np.mean(before["rate"].to_numpy()))
    assert np.median(ratios) > 1.2


def test_spikes_come_unannounced(month: list[Hour], truth: pl.DataFrame) -> None:
    spiking = truth.filter(pl.col("spike"))
    planned = {plan["plan_id"] for hour in month for plan in hour.plans}

    assert spiking["sku"].n_unique() >= 5
    assert all(plan_id.startswith("promotion-") for plan_id in planned)


def test_a_product_is_neither_sold_nor_seen_before_its_launch(month: list[Hour]) -> None:
    assortment = shop().assortment
    launched = dict(zip(assortment.skus, assortment.launched_ms_S.tolist(), strict=True))
    cataloged = {entry["sku"]: hour.start_ms for hour in month for entry in hour.catalog}
    seen = pl.concat([hour.clicks for hour in month]).group_by("sku").agg(pl.col("ts").min())

    new = [sku for sku, ms in launched.items() if START_MS < ms < START_MS + DAYS * DAY_MS]
    assert new, "something is launched within the month"
    for sku, first_ms in seen.iter_rows():
        assert first_ms >= launched[sku] == cataloged[sku]


def test_a_day_has_an_evening_and_a_night(truth: pl.DataFrame) -> None:
    by_hour = truth.group_by(pl.col("start_ms") // HOUR_MS % 24).agg(pl.col("demand").sum())
    demand = dict(by_hour.iter_rows())

    assert demand[20] > 10 * demand[3]


@pytest.mark.slow
def test_inventory_records_have_every_change_of_stock(
    month: list[Hour], truth: pl.DataFrame
) -> None:
    known: dict[str, int] = {}
    for hour in month[:200]:
        known |= {record["sku"]: record["on_hand"] for record in hour.inventory}
        now = truth.filter(pl.col("start_ms") == hour.start_ms)
        assert known == dict(now.select("sku", "on_hand").iter_rows())


def test_records_have_the_columns_of_their_topics(month: list[Hour]) -> None:
    wanted: Schema = {"event_id": pl.String, "ts": pl.Int64, "sku": pl.String}
    for events in (month[0].orders, month[3].clicks):
        assert {name: events.schema[name] for name in wanted} == wanted
