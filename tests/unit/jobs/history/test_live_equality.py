"""The live path and a batch pass over the same files give the same sums, bit for bit."""

import numpy as np
import pytest

from model.contract import SUM_NAMES
from model.durations import HOUR_MS
from stream.decoding.events import ClickDecoder, OrderDecoder
from stream.jobs.files.synthetic_clicks import synthesize_clicks
from stream.jobs.history.from_files import build_history
from stream.jobs.replay.timeline import Encoder, Record, Timeline
from stream.partition.partition import Partition
from stream.privacy import Pseudonyms
from stream.settings import WindowSettings
from tests.support.batches import batch
from tests.support.samples import small_catalog, small_orders

ORDERS = small_orders(2_500)
CLICKS = synthesize_clicks(ORDERS)
CATALOG = small_catalog(ORDERS)
PARTITIONS = 3


def deliver(partition: Partition, records: list[Record], width: int) -> None:
    """Deliver a partition's records in batches of `width`, closing buckets up to the watermark."""
    people = Pseudonyms(b"key")
    decode_orders, decode_clicks = OrderDecoder(), ClickDecoder()
    for start in range(0, len(records), width):
        portion = records[start : start + width]
        for topic in ("orders", "clicks"):
            mine = [record for record in portion if record[0] == topic]
            if not mine:
                continue
            fetched = batch(topic, [r[2] for r in mine], keys=[r[1] for r in mine])
            if topic == "orders":
                judged = partition.count_orders(decode_orders.columns(fetched, latest_ms=2**62))
            else:
                seen = decode_clicks.columns(fetched, latest_ms=2**62)
                judged = partition.count_clicks(seen, people)
            assert judged.counted == len(mine)
        watermark_ms = partition.watermark_ms(frozenset({"inventory"}))
        if watermark_ms is not None:
            partition.close_through(watermark_ms)


@pytest.mark.slow
@pytest.mark.parametrize("width", [7, 1_000])
def test_closed_buckets_of_a_replay_equal_the_history_of_its_files(width: int) -> None:
    timeline = Timeline(ORDERS, CLICKS)
    records = list(timeline.records(0, len(timeline), Encoder(PARTITIONS)))
    history = build_history(
        ORDERS, CLICKS, CATALOG, bucket_ms=HOUR_MS,
        start_ms=int(timeline.event_time_N[0]) // HOUR_MS * HOUR_MS,
    )  # fmt: skip
    expected_TSF = history.dense()
    live_TSF = np.zeros_like(expected_TSF)
    rollups: dict[tuple[int, str], np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
    for number in range(PARTITIONS):
        partition = Partition(number, WindowSettings(), retention_ms=10**12)
        for sku, category in CATALOG.drop_nulls().iter_rows():
            partition.categorise(sku, category)
        deliver(partition, [r for r in records if r[3] == number], width)
        partition.close_through(history.end_ms)
        slots = [history.series.index(name) for name in partition.state.series.ids]
        for closed in partition.state.closed_unsaved:
            t = (closed.start_ms - history.start_ms) // HOUR_MS
            live_TSF[t, slots[: len(closed.values_SF)]] = closed.values_SF
            for name, row in closed.rollups.items():
                zero = np.zeros(len(SUM_NAMES), np.int64)
                rollups[t, name] = rollups.get((t, name), zero) + np.array(row)

    plain = [slot for slot, sku in enumerate(history.skus) if sku]
    np.testing.assert_array_equal(live_TSF[:, plain], expected_TSF[:, plain])
    sums_TSF = np.zeros((*expected_TSF.shape[:2], len(SUM_NAMES)), np.int64)
    sums_TSF[history.bucket_R, history.slot_R] = history.sums_RF
    for slot, (name, sku) in enumerate(zip(history.series, history.skus, strict=True)):
        for t in range(history.buckets) if not sku else ():
            live = rollups.get((t, name), np.zeros(len(SUM_NAMES), np.int64))
            np.testing.assert_array_equal(live, sums_TSF[t, slot])
