"""The laws of ownership, stores that fail and inputs that run ahead, without services."""

import asyncio

import pytest
from faust.types import TP

from model.durations import HOUR_MS
from stream.errors import IncompatibleState, ServiceUnavailable
from stream.ingest import assignment, flushing
from stream.ingest.owned_partition import OwnedPartition
from stream.kafka.broker_identity import BrokerOffsets, Identity
from stream.settings import Settings
from stream.state.keys import Tag
from stream.state.port import StateStore, StateWrite
from tests.support.batches import batch, click, order
from tests.support.brokerless import pipeline_of
from tests.support.memory_store import MemoryStore
from tests.support.memory_topics import MemoryTopics

ORDERS, CLICKS = TP("orders", 0), TP("clicks", 0)
NOW_MS = 2**41
NOWHERE = BrokerOffsets()


class Worker:
    """A pipeline alone, with a settable broker and a count of the rejoins it asked for."""

    def __init__(
        self,
        store: StateStore,
        broker: BrokerOffsets = NOWHERE,
        *,
        adopt: bool = False,
        idle_timeout: str = "0ms",
    ) -> None:
        self.lag: dict[TP, int] = {}
        self.answered_ms = 0
        self.rejoins = 0
        self.broker = broker
        self.pipeline = pipeline_of(
            Settings(
                kafka={"partitions": 1, "session_timeout": "1ms"},
                window={"idle_timeout": idle_timeout, "allowed_lateness": "0ms", "dedup": "30d"},
            ),
            store,
            MemoryTopics(),
            now_ms=NOW_MS,
            lag=lambda tp: self.lag.get(tp, 0),
            answered=lambda _: self.answered_ms,
            read_broker=self._read_broker,
            adopt=adopt,
            rejoin=self._rejoin,
        )

    @property
    def owned(self) -> dict[int, OwnedPartition]:
        return self.pipeline.owner.owned

    async def _read_broker(self, assigned: set[TP]) -> BrokerOffsets:
        return self.broker

    def _rejoin(self) -> None:
        self.rejoins += 1

    async def join(self) -> dict[TP, int]:
        """Be assigned partition 0."""
        return dict(await self.pipeline.resume_offsets({ORDERS, CLICKS}, 1))

    async def tick(self) -> None:
        """One turn of the flush loop."""
        self.pipeline.tick()
        await self.pipeline.flush()


async def counted(store: StateStore) -> int:
    """Orders counted, as stored."""
    return int((await store.meta(0)).get("count:orders:counted", "0"))


async def test_an_owner_fenced_out_while_assigned_acquires_its_partition_again() -> None:
    """No partition is left without an owner: the worker rejoins the group."""
    store = MemoryStore()
    worker = Worker(store)
    await worker.join()
    await worker.pipeline.on_orders(batch("orders", [order("1", 10)]))
    await worker.tick()
    await store.acquire(0)
    await worker.pipeline.on_orders(batch("orders", [order("2", 20)], offset=1))
    await worker.tick()
    assert 0 not in worker.owned

    await worker.tick()
    await asyncio.sleep(0.01)
    await worker.tick()
    assert worker.rejoins == 1
    assert await worker.join() == {ORDERS: 1}
    await worker.pipeline.on_orders(batch("orders", [order("2", 20)], offset=1))
    await worker.tick()
    assert await counted(store) == 2
    await asyncio.sleep(0.01)
    await worker.tick()
    assert worker.rejoins == 1


async def test_an_owner_that_lost_only_the_roll_ups_claims_them_again() -> None:
    """Without a new claim, roll-ups would never close again."""
    store = MemoryStore()
    worker = Worker(store)
    await worker.join()
    await store.acquire("r")
    await worker.pipeline.on_orders(batch("orders", [order("1", 10), order("2", 5 * HOUR_MS)]))
    for _ in range(3):
        await worker.tick()
        await asyncio.sleep(0.01)
    assert worker.rejoins >= 1
    await worker.join()
    await worker.tick()
    assert (await store.meta("r"))["closed_through_ms"] == str(5 * HOUR_MS)


class LostAnswers(MemoryStore):
    """Applies every write, and loses every second answer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def apply(self, tag: Tag, token: int, write: StateWrite) -> None:
        await super().apply(tag, token, write)
        self.calls += 1
        if self.calls % 2:
            raise ServiceUnavailable("the answer was lost")


async def test_a_flush_whose_answer_was_lost_is_not_stored_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lists would grow twice, and every later series would find another's slot."""
    monkeypatch.setattr(flushing, "RETRY_S", 0)
    store = LostAnswers()
    worker = Worker(store)
    await worker.join()
    for place, sku in enumerate("ABC"):
        line = order(sku, (1 + 3 * place) * HOUR_MS, sku=sku)
        await worker.pipeline.on_orders(batch("orders", [line], offset=place))
        await worker.tick()

    assert await store.items(0, ("series",)) == ["A", "B", "C"]
    assert await store.items("r", ("series",)) == ["total"]
    assert await counted(store) == 3


async def test_an_assignment_waits_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebalance while the store is away completes once it answers."""
    monkeypatch.setattr(assignment, "RETRY_S", 0)

    class Absent(MemoryStore):
        calls = 0

        async def meta(self, tag: Tag) -> dict[str, str]:
            self.calls += 1
            if self.calls < 4:
                raise ServiceUnavailable("away")
            return await super().meta(tag)

    worker = Worker(Absent())
    await worker.join()
    assert list(worker.owned) == [0]


async def test_a_store_that_hangs_bounds_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer to a flush the input stops, and continues after the answer."""
    monkeypatch.setattr(flushing, "MAX_UNSTORED", 3)
    answers = asyncio.Event()

    class Hanging(MemoryStore):
        async def apply(self, tag: Tag, token: int, write: StateWrite) -> None:
            await answers.wait()
            await super().apply(tag, token, write)

    store = Hanging()
    worker = Worker(store)
    await worker.join()

    async def feed() -> None:
        for n in range(20):
            await worker.pipeline.on_orders(batch("orders", [order(str(n), n)], offset=n))

    under_way = asyncio.create_task(worker.tick())
    feeding = asyncio.create_task(feed())
    for _ in range(1_000):  # turns of the loop, enough for all that can run
        await asyncio.sleep(0)
    assert worker.owned[0].partition.state.positions["orders"] == 4
    answers.set()
    while not feeding.done():
        await worker.tick()
        await asyncio.sleep(0)
    await under_way
    await worker.tick()
    assert await counted(store) == 20


@pytest.mark.slow
async def test_an_input_far_ahead_of_the_other_waits_and_nothing_of_it_is_lost() -> None:
    """A year of orders and slow clicks: open buckets stay bounded, the result is the same."""
    store = MemoryStore()
    worker = Worker(store)
    worker.lag[CLICKS] = 1
    await worker.join()
    await worker.pipeline.on_clicks(batch("clicks", [click("c", HOUR_MS)]))
    most = 0
    for day in range(365):
        lines = [order(f"{day}-{h}", (24 * day + h) * HOUR_MS + 1) for h in range(24)]
        await worker.pipeline.on_orders(batch("orders", lines, offset=24 * day))
        most = max(most, len(worker.owned[0].partition.state.open))
    assert most <= 200 + 24
    assert worker.pipeline.held == {ORDERS}

    for n, day in enumerate(range(0, 370, 5), start=1):
        seen = click(f"c{n}", 24 * day * HOUR_MS + 2 * HOUR_MS)
        await worker.pipeline.on_clicks(batch("clicks", [seen], offset=n))
        most = max(most, len(worker.owned[0].partition.state.open))
        await worker.tick()
    assert most <= 200 + 24
    assert worker.pipeline.held == frozenset()
    assert await counted(store) == 365 * 24


async def test_a_heartbeat_that_waits_for_records_lets_them_through() -> None:
    """Orders are not held while a heartbeat about them would move the watermark."""
    worker = Worker(MemoryStore())
    worker.lag[CLICKS] = 1
    await worker.join()
    await worker.pipeline.on_clicks(batch("clicks", [click("c", HOUR_MS)]))
    end = b'{"event_time_ms": %d, "offsets": {"orders": 4000}}' % (4000 * HOUR_MS)
    await worker.pipeline.on_heartbeats(batch("heartbeats", [end]))
    for n in range(40):
        lines = [order(f"{n}-{i}", (100 * n + i) * HOUR_MS) for i in range(100)]
        await worker.pipeline.on_orders(batch("orders", lines, offset=100 * n))
    assert worker.pipeline.held == frozenset()
    assert worker.owned[0].partition.state.closed_through_ms == 4000 * HOUR_MS


async def test_a_waiting_heartbeat_survives_a_crash_and_a_rebalance() -> None:
    """Its offset is stored only after it takes effect."""
    store = MemoryStore()
    worker = Worker(store)
    worker.lag[CLICKS] = 1
    await worker.join()
    end = b'{"event_time_ms": %d, "offsets": {"orders": 2}}' % (9 * HOUR_MS)
    await worker.pipeline.on_heartbeats(batch("heartbeats", [end]))
    await worker.pipeline.on_orders(batch("orders", [order("1", HOUR_MS)]))
    await worker.tick()
    assert (await store.meta(0))["offset:heartbeats"] == "0"

    await worker.join()
    await worker.pipeline.on_orders(batch("orders", [order("2", HOUR_MS)], offset=1))
    await worker.tick()
    stored = await store.meta(0)
    assert stored["offset:heartbeats"] == "1"
    assert stored["closed_through_ms"] == str(9 * HOUR_MS)


@pytest.mark.parametrize(
    "poison",
    [
        b"[" * 5_000,
        b'{"event_time_ms": 9, "offsets": {"elsewhere": 5}}',
        b'{"event_time_ms": -1, "offsets": {}}',
        b'{"event_time_ms": 9, "offsets": {"orders": -5}}',
        b'{"event_time_ms": %d, "offsets": {}}' % 2**60,
        b'{"event_time_ms": 9, "offsets": {%b}}' % b",".join(b'"%d": 1' % n for n in range(9_000)),
    ],
)
async def test_a_heartbeat_that_cannot_be_right_is_refused(poison: bytes) -> None:
    """It holds nothing back: the next one takes effect."""
    worker = Worker(MemoryStore())
    await worker.join()
    fine = b'{"event_time_ms": %d, "offsets": {"orders": 1}}' % (2 * HOUR_MS)
    await worker.pipeline.on_heartbeats(batch("heartbeats", [poison, fine]))
    await worker.pipeline.on_orders(batch("orders", [order("1", HOUR_MS)]))

    assert worker.owned[0].partition.state.closed_through_ms == 2 * HOUR_MS
    assert len(worker.owned[0].letters) == 1


async def test_heartbeats_of_offsets_never_reached_are_few_and_hold_nothing_back() -> None:
    worker = Worker(MemoryStore())
    await worker.join()
    never = b'{"event_time_ms": 5, "offsets": {"orders": 1000000}}'
    fine = b'{"event_time_ms": %d, "offsets": {"orders": 1}}' % (2 * HOUR_MS)
    await worker.pipeline.on_heartbeats(batch("heartbeats", [never] * 500 + [fine]))
    await worker.pipeline.on_orders(batch("orders", [order("1", HOUR_MS)]))

    assert worker.owned[0].partition.state.closed_through_ms == 2 * HOUR_MS
    assert len(worker.owned[0].heartbeats) < 101


FIRST = BrokerOffsets(
    Identity("one", {"orders": "id-1"}), {ORDERS: 0, CLICKS: 0}, {ORDERS: 9, CLICKS: 9}
)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (BrokerOffsets(Identity("two", {"orders": "id-1"})), "but the broker is of cluster two"),
        (BrokerOffsets(Identity("one", {"orders": "id-2"})), "but the broker has topic id id-2"),
        (BrokerOffsets(Identity("one"), {}, {ORDERS: 1}), "but the topic ends at offset 1"),
        (BrokerOffsets(Identity("one"), {ORDERS: 7}), "5 were deleted before they were counted"),
    ],
)  # fmt: skip
async def test_offsets_that_do_not_fit_are_refused_until_they_are_given_up(
    places: BrokerOffsets, words: str
) -> None:
    """Never a silent jump: the error names the reason, and adopting keeps all counts."""
    store = MemoryStore()
    worker = Worker(store, FIRST)
    assert await worker.join() == {ORDERS: 0, CLICKS: 0}
    await worker.pipeline.on_orders(batch("orders", [order("1", 1), order("2", 2)]))
    await worker.tick()

    fence = (await store.meta(0))["fence"]
    with pytest.raises(IncompatibleState, match=words):
        await Worker(store, places).join()
    assert (await store.meta(0))["fence"] == fence, "a worker that is refused fences nobody"

    adopting = Worker(store, places, adopt=True)
    resumed = await adopting.join()
    assert resumed.get(ORDERS, 0) == places.earliest.get(ORDERS, 0)
    await adopting.tick()
    assert await counted(store) == 2
    await Worker(store, places).join()


async def test_an_input_is_not_silent_while_the_broker_is_away() -> None:
    """Its producers may be cut off as well: their events are on time when they come."""
    worker = Worker(MemoryStore(), idle_timeout="2s")
    await worker.pipeline.resume_offsets({TP("orders", p) for p in (0, 1)}, 1)
    for offset in range(30):  # clicks are silent, orders are not
        for partition in (0, 1):
            line = order(str(offset), HOUR_MS + offset)
            await worker.pipeline.on_orders(
                batch("orders", [line], offset=offset, partition=partition)
            )
        worker.answered_ms += 100
        await worker.tick()

    await worker.tick()
    worker.answered_ms += 20_000  # it was away; one partition's events are sent first
    ahead = batch("orders", [order("30", 5 * HOUR_MS)], offset=30, partition=1)
    await worker.pipeline.on_orders(ahead)
    await worker.tick()
    await worker.pipeline.on_orders(batch("orders", [order("30", 2 * HOUR_MS)], offset=30))
    await worker.tick()
    counts = worker.owned[0].partition.state.counts
    assert (counts["orders", "counted"], counts["orders", "late"]) == (31, 0)

    for _ in range(30):  # now there is nothing to come
        worker.answered_ms += 100
        await worker.tick()
    assert worker.owned[0].partition.state.closed_through_ms == 2 * HOUR_MS
