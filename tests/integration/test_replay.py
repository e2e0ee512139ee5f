"""A replay to a real broker: order, partitions, heartbeats, resumption, plain errors."""

import gc
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from kafka.partitioner.default import murmur2

from model.durations import HOUR_MS
from stream.errors import ServiceUnavailable, UsageError
from stream.jobs.files.synthetic_clicks import synthesize_clicks
from stream.jobs.replay import sender as replay_sender
from stream.jobs.replay.progress import ReplayProgress
from stream.jobs.replay.run import replay, state_path
from stream.ops.embedded import embedded_broker
from stream.processes.ports import free_port
from stream.settings import Settings
from tests.support.samples import START_MS, small_catalog, small_orders
from tests.support.services import running_broker, settings_for
from tests.support.taps import Tap, check_heartbeats

ORDERS = small_orders(6_000, hours=96)
CLICKS = synthesize_clicks(ORDERS)


def test_every_row_arrives_once_and_unchanged(broker_settings: Settings, tap: Tap) -> None:
    """Values, keys and partitions follow the contract; a null field is left out."""
    report = replay(broker_settings, ORDERS, CLICKS, small_catalog(ORDERS))
    tap.read()

    assert report.events == {"orders": ORDERS.height, "clicks": CLICKS.height, "catalog": 20}
    assert report.complete
    for topic, frame in (("orders", ORDERS), ("clicks", CLICKS)):
        by_id = {row["event_id"]: row for row in frame.iter_rows(named=True)}
        values = tap.values(topic)
        assert len(values) == len(by_id)
        for value in values:
            row = by_id[str(value["event_id"])]
            assert value == {name: cell for name, cell in row.items() if cell is not None}
    for place, records in tap.seen.items():
        if place.topic in {"orders", "clicks", "catalog"}:
            for _, key, value in records:
                assert key == str(value["sku"]).encode()
                assert place.partition == (murmur2(key) & 0x7FFFFFFF) % 4


def test_each_partition_is_in_event_time_order(broker_settings: Settings, tap: Tap) -> None:
    replay(broker_settings, ORDERS, CLICKS)
    tap.read()

    for place, records in tap.seen.items():
        if place.topic in {"orders", "clicks"}:
            times = [int(str(value["ts"])) for _, _, value in records]
            assert times == sorted(times)


@pytest.mark.parametrize("speed", [None, 40_000.0])
def test_no_event_follows_a_newer_heartbeat_and_the_last_one_closes_every_bucket(
    broker_settings: Settings, tap: Tap, monkeypatch: pytest.MonkeyPatch, speed: float | None
) -> None:
    """A heartbeat with every tick of the clock, so that a busy machine sends enough of them."""
    monkeypatch.setattr(replay_sender, "HEARTBEAT_EVERY_S", 0.0)
    report = replay(broker_settings, ORDERS, CLICKS, speed=speed)
    tap.read()

    times = check_heartbeats(tap)
    last_ms = max(int(ORDERS["ts"][-1]), int(CLICKS["ts"][-1]))
    end_ms = (last_ms // HOUR_MS + 1) * HOUR_MS + broker_settings.window.allowed_lateness + HOUR_MS
    # on a slow machine the clock of a paced replay is later than the end of its data
    assert report.heartbeat_ms is not None
    assert report.heartbeat_ms == end_ms or (speed and report.heartbeat_ms > end_ms)
    assert set(times) == set(range(4)), "a partition has no heartbeat"
    for of_partition in times.values():
        assert of_partition == sorted(of_partition)
        assert of_partition[-1] == report.heartbeat_ms
        assert len(of_partition) >= (2 if speed is None else 10)


def test_heartbeats_advance_while_nothing_is_sold(
    broker_settings: Settings, tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats cross a gap of days at the speed of the replay, which takes as long."""
    monkeypatch.setattr(replay_sender, "HEARTBEAT_EVERY_S", 0.0)
    two = pl.concat([ORDERS.head(50), ORDERS.tail(50)]).with_columns(
        ts=pl.when(pl.int_range(pl.len()) < 50)
        .then(START_MS + 3 * HOUR_MS)
        .otherwise(START_MS + 51 * HOUR_MS)
    )
    started_s = time.monotonic()
    report = replay(broker_settings, two, speed=50_000, start_ms=START_MS)
    took_s = time.monotonic() - started_s
    tap.read()

    times = check_heartbeats(tap)
    within = [t for t in times[0] if START_MS + 4 * HOUR_MS < t < START_MS + 50 * HOUR_MS]
    assert len(within) >= 8
    assert times[0][0] <= START_MS + 3 * HOUR_MS, "the clock begins at the first sale"
    assert report.seconds >= 51 * 3_600 / 50_000
    assert took_s < 51 * 3_600 / 50_000 + 10


def test_a_start_and_a_limit_cut_both_files(broker_settings: Settings, tap: Tap) -> None:
    start_ms = START_MS + 24 * HOUR_MS
    report = replay(broker_settings, ORDERS, CLICKS, start_ms=start_ms, limit=500)
    tap.read()

    lines = ORDERS.filter(pl.col("ts") >= start_ms).head(500)
    seen = CLICKS.filter(pl.col("ts").is_between(start_ms, int(lines["ts"][-1])))
    assert report.events == {"orders": 500, "clicks": seen.height}
    assert {v["event_id"] for v in tap.values("clicks")} == set(seen["event_id"])


def test_a_stopped_replay_resumes_behind_the_last_acknowledged_event(
    broker_settings: Settings, tap: Tap
) -> None:
    """No event is lost or repeated; partitions keep their order."""
    stop = threading.Event()

    def stop_half_way(progress: ReplayProgress) -> None:
        if progress.acked > progress.total / 2:
            stop.set()

    paced: dict[str, Any] = {"speed": 60_000.0, "progress": stop_half_way, "stop": stop}
    first = replay(broker_settings, ORDERS, CLICKS, **paced)
    assert not first.complete
    position = msgspec.json.decode(state_path(broker_settings).read_bytes())["position"]
    assert 0 < position < ORDERS.height + CLICKS.height
    assert first.events["orders"] + first.events["clicks"] == position

    second = replay(broker_settings, ORDERS, CLICKS, resume=True)
    tap.read()

    assert second.resumed_at == position
    assert second.complete
    check_heartbeats(tap)
    ids = [str(v["event_id"]) for v in tap.values("orders") + tap.values("clicks")]
    assert Counter(ids) == Counter([*ORDERS["event_id"], *CLICKS["event_id"]])


def test_resuming_a_finished_replay_sends_no_event(broker_settings: Settings, tap: Tap) -> None:
    replay(broker_settings, ORDERS.head(100))
    again = replay(broker_settings, ORDERS.head(100), resume=True)
    tap.read()

    assert again.events == {"orders": 0, "clicks": 0}
    assert len(tap.values("orders")) == 100


def test_ctrl_c_leaves_a_state_to_resume_from(broker_settings: Settings, tap: Tap) -> None:
    def interrupt(progress: ReplayProgress) -> None:
        if progress.acked > 1_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(broker_settings, ORDERS, CLICKS, speed=60_000, progress=interrupt)
    replay(broker_settings, ORDERS, CLICKS, resume=True)
    tap.read()

    ids = {str(v["event_id"]) for v in tap.values("orders") + tap.values("clicks")}
    assert ids == {*ORDERS["event_id"], *CLICKS["event_id"]}
    check_heartbeats(tap)


def test_a_state_of_other_events_is_refused(broker_settings: Settings) -> None:
    replay(broker_settings, ORDERS.head(100))

    with pytest.raises(UsageError, match="other events"):
        replay(broker_settings, ORDERS.head(101), resume=True)
    state_path(broker_settings).write_text("{}")
    with pytest.raises(UsageError, match="not the state of a replay"):
        replay(broker_settings, ORDERS.head(100), resume=True)


def test_progress_counts_acknowledged_events_up_to_all(broker_settings: Settings) -> None:
    shown: list[ReplayProgress] = []
    replay(broker_settings, ORDERS, CLICKS, progress=shown.append)

    total = ORDERS.height + CLICKS.height
    acked = [progress.acked for progress in shown]
    assert acked == sorted(acked)
    assert replace(shown[-1], seconds=0, events_per_s=0, event_time_ms=0) == ReplayProgress(
        sent=total, acked=total, total=total, events_per_s=0, event_time_ms=0, seconds=0, done=True
    )


def test_records_that_a_worker_refuses_are_sent(broker_settings: Settings, tap: Tap) -> None:
    refused = ORDERS.head(3).with_columns(
        sku=pl.Series([None, "1", "2"]), quantity=pl.Series([1, 0, None], dtype=pl.Int64)
    )
    replay(broker_settings, refused)
    tap.read()

    values = {str(v["event_id"]): v for v in tap.values("orders")}
    first, second, third = (values[str(name)] for name in refused["event_id"])
    assert "sku" not in first
    assert second["quantity"] == 0
    assert "quantity" not in third


def test_without_topics_it_says_what_to_run(tmp_path: Path) -> None:
    with embedded_broker(Settings(data_dir=tmp_path), kind="tansu") as running:
        settings = settings_for(running, tmp_path)
        with pytest.raises(UsageError, match="surgecast topics create"):
            replay(settings, ORDERS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_without_a_broker_it_says_so_in_one_line(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = Settings(data_dir=tmp_path, kafka={"bootstrap_servers": address})

    with pytest.raises(ServiceUnavailable, match=address) as caught:
        replay(settings, ORDERS)
    assert "\n" not in str(caught.value)
    gc.collect()  # kafka-python leaves unconnected sockets to the garbage collector


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_broker_that_dies_is_one_line_and_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_sender, "_DELIVERY_TIMEOUT_MS", 3_000)
    with running_broker("tansu", tmp_path) as running:

        def kill(progress: ReplayProgress) -> None:
            if progress.acked > 2_000:
                running.embedded.service.stop()

        with pytest.raises(ServiceUnavailable, match="--resume") as caught:
            replay(running.settings, ORDERS, CLICKS, speed=60_000, progress=kill)

    assert "\n" not in str(caught.value)
    state = msgspec.json.decode(state_path(running.settings).read_bytes())
    assert 0 < state["position"] < state["total"]
    gc.collect()  # as above


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_speed_must_be_a_number_above_zero(tmp_path: Path, speed: float) -> None:
    with pytest.raises(UsageError, match="--speed"):
        replay(Settings(data_dir=tmp_path), ORDERS, speed=speed)


def test_an_empty_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no order line"):
        replay(Settings(data_dir=tmp_path), ORDERS, start_ms=START_MS + 1_000 * HOUR_MS)


def test_sample_times_are_whole_hours() -> None:
    """These tests compute with the constants."""
    assert START_MS % HOUR_MS == 0
    assert np.all(ORDERS["ts"].to_numpy() >= START_MS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ctrl_c_does_not_wait_for_a_broker_that_is_gone(tmp_path: Path) -> None:
    """It ends soon, and the state has the acknowledged events."""
    with running_broker("tansu", tmp_path) as running:
        stopped_s: list[float] = []

        def interrupt(progress: ReplayProgress) -> None:
            if progress.acked > 2_000:
                running.embedded.service.stop()
                stopped_s.append(time.monotonic())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            replay(running.settings, ORDERS, CLICKS, speed=60_000, progress=interrupt)

    assert time.monotonic() - stopped_s[0] < 15  # a delivery may take twice as long
    assert msgspec.json.decode(state_path(running.settings).read_bytes())["position"] > 2_000
    gc.collect()
