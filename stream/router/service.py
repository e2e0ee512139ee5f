"""`surgecast router`: splits order documents into lines and re-keys them by SKU into `orders`.

A separate role in front of the worker, with its own consumer group. The source offsets are
committed only after the broker has acknowledged the lines, so a crash sends some lines twice and
loses none; the ingest drops the duplicates by their ids (`stream/router/documents.py`). Lines are
sent in event-time order over all partitions of this router (`stream/router/event_time_merge.py`);
several routers may differ by up to `window.allowed_lateness`.
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
from stream.kafka.clients import METADATA_MS, aiokafka_config
from stream.kafka.producer import BatchProducer
from stream.kafka.reading.joining import group_refusal, wait_for_source, wait_for_topics
from stream.privacy import Pseudonyms
from stream.processes.signals import stop_signals
from stream.router.documents import DocumentReader, Routed
from stream.router.event_time_merge import EventTimeMerge
from stream.settings import KafkaSettings, Settings
from stream.sinks.topic_records import dead_letter
from stream.state.connect import load_pseudonyms, redis_options
from stream.telemetry import ROUTED
from stream.topics import DEAD_LETTER, ORDERS

log = structlog.get_logger(__name__)

FETCH_RECORDS: Final = 4_000
#: A partition with more pending documents is paused until the others have caught up.
MAX_PENDING: Final = 20_000
#: Documents per commit: at most as many are sent again after a crash.
COMMIT_EVERY: Final = 2_000
RETRY_S: Final = 1.0
POLL_MS: Final = 200

Item = tuple[ConsumerRecord, Routed]


class Router:
    """The loop of the role; `run` subscribes `consumer`."""

    def __init__(
        self,
        settings: Settings,
        consumer: Any,
        sink: BatchProducer,
        source: Format,
        pseudonyms: Pseudonyms,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self._kafka = settings.kafka
        self._topic = settings.router.source or ""
        self._idle_timeout_s = settings.window.idle_timeout / 1000
        self._tolerance_ms = settings.window.future_tolerance
        self._consumer = consumer
        self._sink = sink
        self._source = source
        self._pseudonyms = pseudonyms
        self._clock_ms = clock_ms
        self._reader = DocumentReader(source, people=pseudonyms)
        self._merge: EventTimeMerge[TopicPartition, Item] = EventTimeMerge()
        self._progress_s = time.monotonic()

    async def run(self) -> None:
        """Route until cancelled; retries while the broker does not answer."""
        self._consumer.subscribe([self._topic], listener=_ForgetRevoked(self._merge))
        while True:
            try:
                fetched = await self._consumer.getmany(
                    timeout_ms=POLL_MS, max_records=FETCH_RECORDS
                )
            except KafkaError as error:
                refusal = group_refusal(error, self._kafka, group=router_group(self._kafka))
                if refusal is not None:
                    raise refusal from error
                log.warning("router_waits", reason=repr(error))
                await asyncio.sleep(RETRY_S)
                continue
            for tp, records in fetched.items():
                await self._add(tp, records)
                self._progress_s = time.monotonic()
            released = self._release()
            for start in range(0, len(released), COMMIT_EVERY):
                await self._forward(released[start : start + COMMIT_EVERY])

    async def _add(self, tp: TopicPartition, records: list[ConsumerRecord]) -> None:
        await self._source.prepare(records)
        latest_ms = self._clock_ms() + self._tolerance_ms
        routed = self._reader.read([record.value for record in records])
        # A time too far in the future delays nothing here; the ingest refuses the line.
        times = [
            None if result.time_ms is None or result.time_ms > latest_ms else result.time_ms
            for result in routed
        ]
        self._merge.add(tp, zip(times, zip(records, routed, strict=True), strict=True))
        if self._merge.pending(tp) > MAX_PENDING:
            self._consumer.pause(tp)

    def _release(self) -> list[tuple[TopicPartition, Item]]:
        assigned = self._consumer.assignment()
        at_end = {tp for tp in assigned if self._at_end(tp)}
        released = self._merge.release(assigned, at_end=at_end)
        if not released and time.monotonic() - self._progress_s > self._idle_timeout_s:
            # Without the partitions whose unread records do not arrive: their broker may be down.
            stalled = {tp for tp in assigned if not self._merge.pending(tp)}
            released = self._merge.release(assigned, at_end=at_end | stalled)
        for tp in self._consumer.paused():
            if self._merge.pending(tp) <= MAX_PENDING:
                self._consumer.resume(tp)
        return released

    def _at_end(self, tp: TopicPartition) -> bool:
        """True if a partition is read to its end, as of the last fetch."""
        highwater = self._consumer.last_stable_offset(tp)
        if highwater is None or highwater < 0:
            highwater = self._consumer.highwater(tp)
        if highwater is None or self._merge.pending(tp) > MAX_PENDING:
            return False
        state = self._consumer._subscription.subscription.assignment.state_value(tp)
        return state is not None and state.has_valid_position and state.position >= highwater

    async def _forward(self, released: list[tuple[TopicPartition, Item]]) -> None:
        """Send the released documents, wait for the broker, then commit."""
        lines = [line for _, (_, routed) in released for line in routed.lines]
        letters = [
            (f"{tp.topic}-{tp.partition}", letter)
            for tp, (record, routed) in released
            if routed.refused
            for letter in self._letters(tp, record, routed)
        ]
        if letters:
            await self._send(DEAD_LETTER.name, letters)
        if lines:
            await self._send(ORDERS.name, lines)
        ROUTED.labels("documents").inc(len(released))
        ROUTED.labels("lines").inc(len(lines))
        ROUTED.labels("refused").inc(len(letters))
        await self._commit({tp: record.offset + 1 for tp, (record, _) in released})

    def _letters(self, tp: TopicPartition, record: ConsumerRecord, routed: Routed) -> list[bytes]:
        value = self._source.readable(record.value)
        return [
            dead_letter(
                refused, value, topic=tp.topic, partition=tp.partition, offset=record.offset,
                received_ms=self._clock_ms(), pseudonyms=self._pseudonyms,
            )
            for refused in routed.refused
        ]  # fmt: skip

    async def _send(self, topic: str, records: list[tuple[str, bytes]]) -> None:
        while True:
            try:
                await self._sink.send(topic, records)
            except ServiceUnavailable as error:
                log.warning("router_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        assigned = self._consumer.assignment()
        owned = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        try:
            if owned:
                await self._consumer.commit(owned)
        except KafkaError as error:  # the next owner sends the lines again; the ingest drops them
            log.warning("router_commit_failed", reason=repr(error))


class _ForgetRevoked(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Drops the items of partitions that move to another router."""

    def __init__(self, merge: EventTimeMerge[TopicPartition, Item]) -> None:
        self._merge = merge

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Drop their items: the next owner starts at the committed offsets."""
        self._merge.forget(revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Do nothing: they have no items yet."""


def router_group(kafka: KafkaSettings) -> str:
    """Return the consumer group of the routers, apart from the workers'.

    >>> router_group(KafkaSettings())
    'surgecast-router'
    """
    return f"{kafka.group}-router"


def run(settings: Settings) -> None:
    """Run a router until SIGTERM or SIGINT. Blocks.

    Raises UsageError if `ingest.format` is not json.
    """
    if settings.ingest.format != "json":
        raise UsageError(
            f"the router writes JSON to orders, but ingest.format is {settings.ingest.format}:"
            " set SURGECAST_INGEST__FORMAT=json"
        )
    try:
        with stop_signals():
            wait_for_topics(settings, [ORDERS.name, DEAD_LETTER.name], needed=ORDERS.name)
            wait_for_source(settings, settings.router.source or "")
    except KeyboardInterrupt:
        return
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    router = settings.router
    source: Format = JsonFormat()
    if router.format == "avro":
        source = open_format(settings.ingest.model_copy(update={"format": "avro"}))
    consumer = AIOKafkaConsumer(
        **aiokafka_config(settings),
        group_id=router_group(settings.kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=settings.kafka.session_timeout,
        heartbeat_interval_ms=settings.kafka.session_timeout // 4,
        metadata_max_age_ms=METADATA_MS,
        fetch_max_wait_ms=100,
        isolation_level="read_committed",
    )
    sink = BatchProducer(aiokafka_config(settings))
    try:
        await sink.start()
        await _start(consumer)
        routing = Router(
            settings, consumer, sink, source, _pseudonyms(settings), clock_ms=wall_clock_ms
        )  # fmt: skip
        task = asyncio.ensure_future(routing.run())
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


async def _start(consumer: Any) -> None:
    try:
        await consumer.start()
    except KafkaError as error:
        raise ServiceUnavailable(f"the broker did not answer: {error}") from error


def _pseudonyms(settings: Settings) -> Pseudonyms:
    if settings.privacy.key:
        return Pseudonyms(settings.privacy.key.get_secret_value().encode())
    url, options = redis_options(settings)
    with redis.Redis.from_url(url, **options) as client:
        return load_pseudonyms(settings, client)
