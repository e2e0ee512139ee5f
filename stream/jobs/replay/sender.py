"""Sends the records and heartbeats of a replay and tracks their acknowledgements.

A **mark** follows each run of records: the event time before which everything has been sent, the
position in the timeline, and the newest record of each partition. Once the broker has acknowledged
all records before it, the mark is *settled*: a replay can resume from its position, and a heartbeat
may carry its event time. Sending waits for the broker only if too many records are in flight.
"""

import gc
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from stream.errors import ServiceUnavailable, UsageError
from stream.jobs.replay.timeline import Record
from stream.kafka.admin import describe_topics
from stream.kafka.clients import kafka_python_config, require_broker
from stream.settings import Settings
from stream.topics import CATALOG, EVENT_INPUTS, HEARTBEATS

HEARTBEAT_EVERY_S: Final = 0.25
MAX_IN_FLIGHT: Final = 100_000
_DELIVERY_TIMEOUT_MS: Final = 30_000
_INTERRUPTED_WAIT_S: Final = 2.0

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """All events before `position` have been sent; none older than `event_time_ms` follows."""

    position: int
    event_time_ms: int
    newest: dict[Place, Any]
    records: list[Any]

    def settled(self) -> bool:
        """True if the broker has answered for every record before the mark."""
        return all(future.is_done for future in self.newest.values())


class Sender:
    """A kafka-python producer that tracks acknowledgements. Use it as a context manager.

    Raises ServiceUnavailable if the broker does not answer or refuses, UsageError if topics are
    missing or differ in partitions, or if a record exceeds the broker's limit.
    """

    def __init__(self, settings: Settings, *, linger_ms: int) -> None:
        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # our errors have the reason
        self._address = require_broker(settings)
        self.partitions = _partitions(settings)
        self._next_offset = _end_offsets(settings, self.partitions)
        self._newest: dict[Place, Any] = {}
        self._unmarked: list[Any] = []
        self._marks: deque[Mark] = deque()
        self._in_flight = 0
        self._heartbeat_s = 0.0
        self.settled: Mark | None = None
        self.heartbeat_ms: int | None = None
        try:
            self._producer = KafkaProducer(
                **kafka_python_config(settings),
                client_id="surgecast-replay",
                acks="all",
                linger_ms=linger_ms,
                batch_size=131_072,
                compression_type="lz4",
                max_request_size=8_388_608,
                delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
                request_timeout_ms=_DELIVERY_TIMEOUT_MS // 3,
                max_block_ms=_DELIVERY_TIMEOUT_MS,
                bootstrap_timeout_ms=10_000,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        except (KafkaError, OSError, ValueError) as error:
            raise self._unavailable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._producer.close(timeout=5 if kind is None else 1)
        except KafkaError as failure:
            # close() gave up on its flush and left the thread running: drop what is in flight
            self._producer._sender.force_close()
            self._producer.close(timeout=5)
            if kind is None:
                raise self._unavailable(failure) from None

    def send(self, records: Iterable[Record]) -> None:
        """Hand records to the producer, in order."""
        send, newest, unmarked = self._producer.send, self._newest, self._unmarked
        try:
            for topic, key, value, partition in records:
                future = send(topic, value, key, None, partition)
                newest[topic, partition] = future
                unmarked.append(future)
        except MessageSizeTooLargeError as error:
            raise UsageError(f"a record exceeds the broker's limit: {_first_line(error)}") from None
        except KafkaError as error:
            raise self._unavailable(error) from None

    def mark(self, position: int, event_time_ms: int) -> None:
        """Set a mark after the records sent so far; wait if too many records are in flight."""
        self._marks.append(Mark(position, event_time_ms, dict(self._newest), self._unmarked))
        self._in_flight += len(self._unmarked)
        self._unmarked = []
        self.follow()
        while self._in_flight > MAX_IN_FLIGHT:
            self._wait(self._marks[0])
            self.follow()

    def follow(self) -> None:
        """Process acknowledgements; send a heartbeat if one is due."""
        while self._marks and self._marks[0].settled():
            mark = self._marks.popleft()
            self._settle(mark)
        now_s = time.monotonic()
        if self.settled is not None and now_s - self._heartbeat_s >= HEARTBEAT_EVERY_S:
            self._heartbeat_s = now_s
            self._heartbeat(self.settled.event_time_ms)

    def drain(self) -> None:
        """Wait until everything before the last mark is acknowledged."""
        while self._marks:
            self._wait(self._marks[-1])
            self.follow()

    def collect_acknowledgements(self) -> None:
        """Process acknowledgements for a short time after Ctrl-C, without waiting for all."""
        until_s = time.monotonic() + _INTERRUPTED_WAIT_S
        with suppress(ServiceUnavailable, UsageError):
            while self._marks and time.monotonic() < until_s:
                self.follow()
                time.sleep(0.02)

    def finish(self, event_time_ms: int) -> None:
        """Wait for all acknowledgements, then send a last heartbeat with `event_time_ms`."""
        self.drain()
        self._heartbeat(event_time_ms)
        try:
            self._producer.flush(timeout=_DELIVERY_TIMEOUT_MS / 1_000)
        except KafkaError as error:
            raise self._unavailable(error) from None

    def _settle(self, mark: Mark) -> None:
        for future in mark.records:
            error = future.exception
            if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                raise UsageError(
                    "a record exceeds the broker's limit; raise message.max.bytes or shorten it"
                )
            if error is not None:
                raise self._unavailable(error)
        self._in_flight -= len(mark.records)
        for place, future in mark.newest.items():
            self._next_offset[place] = int(future.value.offset) + 1
        self.settled = mark

    def _heartbeat(self, event_time_ms: int) -> None:
        """Send the event time and the settled offsets to every partition, if they are new."""
        if self.heartbeat_ms is not None and event_time_ms <= self.heartbeat_ms:
            return
        self.heartbeat_ms = event_time_ms
        for partition in range(self.partitions):
            offsets = {
                topic.name: self._next_offset[topic.name, partition] for topic in EVENT_INPUTS
            }
            value = msgspec.json.encode({"event_time_ms": event_time_ms, "offsets": offsets})
            try:
                self._producer.send(
                    HEARTBEATS.name, value, str(partition).encode(), None, partition
                )
            except KafkaError as error:
                raise self._unavailable(error) from None

    def _wait(self, mark: Mark) -> None:
        for future in mark.newest.values():
            try:
                future.get(timeout=_DELIVERY_TIMEOUT_MS / 1_000 + 5)
            except KafkaError as error:
                if not future.is_done:
                    raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"broker {self._address} does not accept the records ({_first_line(error)}); "
            "start it, then continue with `surgecast replay --resume`"
        )


@contextmanager
def few_collections() -> Iterator[None]:
    """Run the cyclic garbage collector rarely: the many records in flight form no cycles."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _partitions(settings: Settings) -> int:
    """Number of partitions of the input topics. Raises UsageError if one is missing or differs."""
    states = describe_topics(settings, [*EVENT_INPUTS, CATALOG, HEARTBEATS])
    missing = [state.name for state in states if not state.partitions]
    if missing:
        raise UsageError(
            f"the broker has no topic {', '.join(missing)}; run `surgecast topics create`"
        )
    counts = {state.name: state.partitions for state in states}
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"all input topics need the same number of partitions, but the broker has {counts}"
        )
    return states[0].partitions


def _end_offsets(settings: Settings, partitions: int) -> dict[Place, int]:
    """Next offset of each partition of the event topics, before anything is sent.

    Tansu returns the base offset of the last batch plus 1 as the end of a partition, so the last
    batch is read.
    """
    places = [
        TopicPartition(topic.name, partition)
        for topic in EVENT_INPUTS
        for partition in range(partitions)
    ]
    try:
        consumer = KafkaConsumer(**kafka_python_config(settings), max_poll_records=1_000_000)
        try:
            ends = consumer.end_offsets(places)
            filled = [place for place in places if ends[place] > 0]
            consumer.assign(filled)
            for place in filled:
                consumer.seek(place, ends[place] - 1)
            give_up_s = time.monotonic() + _DELIVERY_TIMEOUT_MS / 1_000
            while any(consumer.position(place) < ends[place] for place in filled):
                consumer.poll(timeout_ms=500)
                if time.monotonic() > give_up_s:
                    raise KafkaTimeoutError("it does not return its last records")
            ends |= {place: consumer.position(place) for place in filled}
        finally:
            consumer.close()
    except (KafkaError, OSError, ValueError) as error:
        raise ServiceUnavailable(
            f"broker {require_broker(settings)}: {_first_line(error)}"
        ) from None
    return {(place.topic, place.partition): int(end) for place, end in ends.items()}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
