"""`surgecast router`: a topic keyed by order or customer, exploded and re-keyed into `orders`.

A role of its own in front of the worker, in a consumer group of its own: whole fetches in, whole
batches out. The offsets of the source are committed only after the broker has what came of it, so a
crash sends some lines twice and loses none; the ingest drops the second by its id
(`stream/router/documents.py`). Lines go out in event-time order over all partitions this router
reads (`stream/router/event_time_merge.py`); what several routers read may be apart by
`window.allowed_lateness`.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from stream.clock import wall_clock_ms
from stream.decoding.formats import Format, JsonFormat, open_format
from stream.errors import ServiceUnavailable, UsageError
from stream.kafka.clients import aiokafka_config
from stream.kafka.producer import BatchProducer
from stream.privacy import Pseudonyms
from stream.router.documents import DocumentReader, Routed
from stream.router.event_time_merge import EventTimeMerge
from stream.settings import Settings
from stream.sinks.topic_records import dead_letter
from stream.state.connect import load_pseudonyms, redis_options
from stream.telemetry import ROUTED
from stream.topics import DEAD_LETTER, ORDERS

log = structlog.get_logger(__name__)

FETCH_RECORDS: Final = 4_000
#: A partition with more than this waiting is not read on until the others have come up.
MAX_WAITING: Final = 20_000
#: Documents sent before their offsets are committed: what a crash sends again at most.
SENT_AT_ONCE: Final = 2_000
RETRY_S: Final = 1.0
POLL_MS: Final = 200

Item = tuple[ConsumerRecord, Routed]


class Router:
    """The loop of the role; `consumer` is subscribed by `run`."""

    def __init__(
        self,
        settings: Settings,
        consumer: Any,
        sink: BatchProducer,
        source: Format,
        people: Pseudonyms,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self._topic = settings.router.source or ""
        self._idle_timeout_s = settings.window.idle_timeout / 1000
        self._tolerance_ms = settings.window.future_tolerance
        self._consumer = consumer
        self._sink = sink
        self._source = source
        self._people = people
        self._clock_ms = clock_ms
        self._reader = DocumentReader(source)
        self._held: EventTimeMerge[TopicPartition, Item] = EventTimeMerge()
        self._moved_s = time.monotonic()

    async def run(self) -> None:
        """Route until cancelled; waits while the broker does not answer."""
        self._consumer.subscribe([self._topic], listener=_Forgetting(self._held))
        while True:
            try:
                fetched = await self._consumer.getmany(
                    timeout_ms=POLL_MS, max_records=FETCH_RECORDS
                )
            except KafkaError as error:
                log.warning("router_waits", reason=repr(error))
                await asyncio.sleep(RETRY_S)
                continue
            for tp, records in fetched.items():
                await self._hold(tp, records)
                self._moved_s = time.monotonic()
            released = self._released()
            for start in range(0, len(released), SENT_AT_ONCE):
                await self._forward(released[start : start + SENT_AT_ONCE])

    async def _hold(self, tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        await self._source.prepare(records)
        latest_ms = self._clock_ms() + self._tolerance_ms
        routed = self._reader.read([record.value for record in records])
        # A time that cannot be true goes on, for the ingest to refuse; it holds up nobody.
        self._held.add(
            tp,
            (
                (one.time_ms if one.time_ms is not None and one.time_ms <= latest_ms else None,
                 (record, one))
                for record, one in zip(records, routed, strict=True)
            ),
        )  # fmt: skip
        if self._held.waiting(tp) > MAX_WAITING:
            self._consumer.pause(tp)

    def _released(self) -> list[tuple[TopicPartition, Item]]:
        assigned = self._consumer.assignment()
        at_end = {tp for tp in assigned if self._at_end(tp)}
        released = self._held.release(assigned, at_end=at_end)
        if not released and time.monotonic() - self._moved_s > self._idle_timeout_s:
            # Nothing comes of a partition that has more: its broker may be away. Others go on.
            silent = {tp for tp in assigned if not self._held.waiting(tp)}
            released = self._held.release(assigned, at_end=at_end | silent)
        for tp in self._consumer.paused():
            if self._held.waiting(tp) <= MAX_WAITING:
                self._consumer.resume(tp)
        return released

    def _at_end(self, tp: TopicPartition) -> bool:
        """Whether a partition has been read to its end, as far as the last fetch knew."""
        highwater = self._consumer.last_stable_offset(tp)
        if highwater is None or highwater < 0:
            highwater = self._consumer.highwater(tp)
        if highwater is None or self._held.waiting(tp) > MAX_WAITING:
            return False
        state = self._consumer._subscription.subscription.assignment.state_value(tp)
        return state is not None and state.has_valid_position and state.position >= highwater

    async def _forward(self, released: list[tuple[TopicPartition, Item]]) -> None:
        """Send what is released, wait for the broker, then commit."""
        lines = [line for _, (_, routed) in released for line in routed.lines]
        letters = [
            (f"{tp.topic}-{tp.partition}", letter)
            for tp, (record, routed) in released
            if routed.refused
            for letter in self._letters(tp, record, routed)
        ]
        if letters:
            await self._sent(DEAD_LETTER.name, letters)
        if lines:
            await self._sent(ORDERS.name, lines)
        ROUTED.labels("documents").inc(len(released))
        ROUTED.labels("lines").inc(len(lines))
        ROUTED.labels("refused").inc(len(letters))
        await self._commit({tp: record.offset + 1 for tp, (record, _) in released})

    def _letters(self, tp: TopicPartition, record: ConsumerRecord, routed: Routed) -> list[bytes]:
        value = self._source.readable(record.value)
        return [
            dead_letter(
                one, value, topic=tp.topic, partition=tp.partition, offset=record.offset,
                received_ms=self._clock_ms(), pseudonyms=self._people,
            )
            for one in routed.refused
        ]  # fmt: skip

    async def _sent(self, topic: str, records: list[tuple[str, bytes]]) -> None:
        while True:
            try:
                await self._sink.send(topic, records)
            except ServiceUnavailable as error:
                log.warning("router_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        mine = self._consumer.assignment()
        kept = {tp: offset for tp, offset in offsets.items() if tp in mine}
        try:
            if kept:
                await self._consumer.commit(kept)
        except KafkaError as error:  # sent again by whoever reads on, and dropped by the ingest
            log.warning("router_commit_failed", reason=repr(error))


class _Forgetting(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Drops what is held of partitions that another router reads from now on."""

    def __init__(self, held: EventTimeMerge[TopicPartition, Item]) -> None:
        self._held = held

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Forget them: who takes over starts at what was committed."""
        self._held.forget(revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing is held of them yet."""


def run(settings: Settings) -> None:
    """Run a router until it is told to stop (SIGTERM, SIGINT). Blocks."""
    if settings.ingest.format != "json":
        raise UsageError("the router writes JSON to orders: ingest.format must be json beside it")
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    router = settings.router
    source: Format = JsonFormat()
    if router.format == "avro":
        source = open_format(settings.ingest.model_copy(update={"format": "avro"}))
    consumer = AIOKafkaConsumer(
        **aiokafka_config(settings),
        group_id=f"{settings.kafka.group}-router",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=settings.kafka.session_timeout,
        heartbeat_interval_ms=settings.kafka.session_timeout // 4,
        fetch_max_wait_ms=100,
        isolation_level="read_committed",
    )
    sink = BatchProducer(aiokafka_config(settings))
    try:
        await sink.start()
        await _started(consumer)
        route = Router(
            settings, consumer, sink, source, _people(settings), clock_ms=wall_clock_ms
        )  # fmt: skip
        task = asyncio.ensure_future(route.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        log.info("router_started", source=router.source)
        try:
            await task
        except asyncio.CancelledError:
            log.info("router_stopped")
    finally:
        await consumer.stop()
        await sink.stop()


async def _started(consumer: Any) -> None:
    try:
        await consumer.start()
    except KafkaError as error:
        raise ServiceUnavailable(f"the broker did not answer: {error}") from error


def _people(settings: Settings) -> Pseudonyms:
    if settings.privacy.key:
        return Pseudonyms(settings.privacy.key.get_secret_value().encode())
    url, options = redis_options(settings)
    with redis.Redis.from_url(url, **options) as client:
        return load_pseudonyms(settings, client)
