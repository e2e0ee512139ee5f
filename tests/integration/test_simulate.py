"""The simulated shop and a real broker: valid records, heartbeats, true demand, a clean end."""

import json
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.decoding.events import ClickDecoder, OrderDecoder
from stream.decoding.inventory import InventoryDecoder
from stream.decoding.schemas import CatalogEntry
from stream.errors import UsageError
from stream.jobs.replay.progress import ReplayProgress
from stream.jobs.simulate.run import simulate
from stream.jobs.simulate.shop import Shop
from stream.settings import Settings, child_environment
from stream.state import keys
from tests.support.batches import batch
from tests.support.taps import Tap, check_heartbeats

START_MS = 1_735_689_600_000
SHOP: dict[str, Any] = {"seed": 5, "products": 40, "orders_per_hour": 60.0, "start_ms": START_MS}


def test_every_record_arrives_and_is_accepted_by_a_worker(
    broker_settings: Settings, tap: Tap
) -> None:
    report = simulate(broker_settings, hours=30, **SHOP)
    tap.read()

    world = Shop(**SHOP)
    hours = [world.next_hour() for _ in range(30)]
    decoders: dict[str, Any] = {
        "orders": OrderDecoder(),
        "clicks": ClickDecoder(),
        "inventory": InventoryDecoder(),
    }
    for topic, decoder in decoders.items():
        if topic != "inventory":
            sent = pl.concat([getattr(hour, topic) for hour in hours])
            got = {str(value["event_id"]): value for value in tap.values(topic)}
            assert got == {row["event_id"]: row for row in sent.iter_rows(named=True)}
        for place, records in tap.seen.items():
            if place.topic == topic:
                values = [msgspec.json.encode(value) for _, _, value in records]
                fetched = batch(topic, values, keys=[key for _, key, _ in records])
                assert decoder.columns(fetched, latest_ms=2**62).refused == []
    assert report.hours == 30
    assert report.events == len(tap.values("orders")) + len(tap.values("clicks"))
    msgspec.convert(tap.values("catalog"), list[CatalogEntry])
    assert tap.values("plans") == [plan for hour in hours for plan in hour.plans]
    assert len(tap.values("inventory")) == sum(len(hour.inventory) for hour in hours)


def test_no_event_follows_a_newer_heartbeat_and_the_end_closes_every_bucket(
    broker_settings: Settings, tap: Tap
) -> None:
    simulate(broker_settings, hours=12, speed=40_000, **SHOP)
    tap.read()

    times_by_partition = check_heartbeats(tap)
    end_ms = START_MS + 13 * HOUR_MS + broker_settings.window.allowed_lateness
    assert {times[-1] for times in times_by_partition.values()} == {end_ms}


def test_true_demand_adds_up_to_the_orders_sent(broker_settings: Settings, tap: Tap) -> None:
    report = simulate(broker_settings, hours=30, **SHOP)
    tap.read()

    files = sorted(report.truth.glob("*.parquet"))
    assert [path.name for path in files] == [
        "truth-2025-01-01T00.parquet",
        "truth-2025-01-02T00.parquet",
    ]
    truth = pl.concat([pl.read_parquet(path) for path in files])
    sold: dict[str, int] = defaultdict(int)
    for value in tap.values("orders"):
        sold[str(value["sku"])] += max(int(str(value["quantity"])), 0)
    written = dict(truth.group_by("sku").agg(pl.col("sold").sum()).iter_rows())
    assert {sku: units for sku, units in written.items() if units} == dict(sold)


def test_no_event_is_from_the_future_and_a_stop_ends_the_shop(
    broker_settings: Settings, tap: Tap
) -> None:
    """It catches up with the wall clock, then waits for it; the hour cut short is lost."""
    stop, now_ms = threading.Event(), START_MS + 2 * HOUR_MS + 1_800_000

    def end_when_caught_up(progress: ReplayProgress) -> None:
        if progress.event_time_ms >= now_ms:
            stop.set()

    report = simulate(
        broker_settings,
        progress=end_when_caught_up,
        stop=stop,
        now_ms=lambda: now_ms,
        **SHOP,
    )
    tap.read()

    times = np.array([int(str(v["ts"])) for v in tap.values("orders") + tap.values("clicks")])
    assert times.max() <= now_ms
    assert times.max() > now_ms - HOUR_MS
    assert report.hours == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"products": 0}, "--products"),
        ({"orders_per_hour": 0.0}, "--orders-per-hour"),
        ({"speed": -1.0}, "--speed"),
        ({"start_ms": 2**50}, "past"),
    ],
)
def test_impossible_numbers_are_refused(
    tmp_path: Path, change: dict[str, float], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        simulate(Settings(data_dir=tmp_path), **(SHOP | change))


def test_the_command_labels_its_shop_synthetic(
    broker_settings: Settings, valkey_url: str, redis_client: Redis, tmp_path: Path
) -> None:
    """Made-up demand says so wherever it shows, when the shop ends and before."""
    environment = child_environment(broker_settings) | {
        "SURGECAST_REDIS__URL": valkey_url,
        "SURGECAST_DATA_DIR": str(tmp_path),
    }
    shop = ["simulate", "--products", "5", "--hours", "1", "--speed", "max"]
    subprocess.run([sys.executable, "-m", "stream.cli", *shop], env=environment, check=True)

    labels = json.loads(redis_client.get(keys.info()) or b"{}")["labels"]
    assert set(labels) == {"orders", "clicks"}
    assert all("synthetic" in label for label in labels.values())
