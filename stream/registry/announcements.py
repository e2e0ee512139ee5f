"""The topic `models`: announces promotions and rollbacks, and carries retrain requests.

The registry is the authority; a record only triggers an early look at it, so a lost record costs
the time until the next regular look. Every worker and the trainer read the whole topic, without a
consumer group. A record is JSON:
`{"action": "promote"|"rollback"|"retrain", "model_id", "reason", "at_ms", "drift"}`.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError as AioKafkaError
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from model.durations import DAY_MS
from stream.clock import wall_clock_ms
from stream.decoding.fields import MAX_NAME
from stream.decoding.input_decoder import require_value
from stream.decoding.refusals import UNREADABLE, unreadable
from stream.errors import ServiceUnavailable, UnreadableEvent
from stream.kafka.clients import kafka_python_config
from stream.kafka.reading.inflation import UNREADABLE_BATCH
from stream.settings import Settings
from stream.topics import MODELS

log = structlog.get_logger(__name__)

#: Longest record that is read.
MAX_BYTES: Final = 65_536
_RETRY_S: Final = 10.0
_TIMEOUT_S: Final = 10.0


class ModelRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record of the topic. `model_id` is empty if `action` is retrain.

    `drift` is true for a retrain that drift has requested, not a person.

    >>> ModelRecord.decode(ModelRecord("retrain", reason="drift", at_ms=5).encode()).reason
    'drift'
    """

    action: Literal["promote", "rollback", "retrain"]
    model_id: str = ""
    reason: str = ""
    at_ms: int = 0
    drift: bool = False

    def encode(self) -> bytes:
        """Encode the record as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes | None) -> "ModelRecord | None":
        """Decode a record; None, with a line in the log, if it is not a valid one."""
        try:
            record = msgspec.json.decode(require_value(value, max_bytes=MAX_BYTES), type=cls)
            _require_plausible(record)
        except UNREADABLE as error:
            fault = unreadable(error)
            log.warning("control_record_refused", reason=fault.reason, detail=fault.detail[:200])
            return None
        return record


def _require_plausible(record: ModelRecord) -> None:
    """Raise UnreadableEvent for values that no role of ours writes."""
    if not (record.model_id.isprintable() and len(record.model_id) <= MAX_NAME):
        raise UnreadableEvent(
            "invalid_model_id",
            f"model_id {record.model_id[:60]!r} is not printable or longer than {MAX_NAME}",
        )
    latest_ms = wall_clock_ms() + DAY_MS
    if not 0 <= record.at_ms <= latest_ms:
        raise UnreadableEvent(
            "future_timestamp", f"at_ms {record.at_ms} is not between 0 and {latest_ms}"
        )


def announce(settings: Settings, record: ModelRecord) -> None:
    """Send a record and wait for the broker's acknowledgement. Raises ServiceUnavailable."""
    try:
        producer = KafkaProducer(**kafka_python_config(settings), retries=3)
    except (KafkaError, OSError) as error:
        raise ServiceUnavailable(f"topic {MODELS.name}: {error}") from None
    try:
        producer.send(MODELS.name, record.encode(), key=record.action.encode()).get(_TIMEOUT_S)
    except KafkaError as error:
        raise ServiceUnavailable(f"topic {MODELS.name}: {error}") from None
    finally:
        producer.close(timeout=_TIMEOUT_S)


async def listen(client: dict[str, Any], on_record: Callable[[ModelRecord], None]) -> None:
    """Call `on_record` for every new record until cancelled; reconnects by itself.

    `client` holds aiokafka's connection arguments. A missing topic is looked for again every few
    seconds; callers must work without it.
    """
    while True:
        consumer = AIOKafkaConsumer(**client, enable_auto_commit=False, auto_offset_reset="latest")
        try:
            await consumer.start()
            # Subscribing to a missing topic could create it.
            if MODELS.name in await consumer.topics():
                consumer.subscribe([MODELS.name])
                async for record in consumer:
                    decoded = ModelRecord.decode(record.value)
                    if decoded is not None:
                        on_record(decoded)
        except (AioKafkaError, OSError) as error:
            log.debug("control_topic_unavailable", reason=repr(error))
        finally:
            with suppress(AioKafkaError, OSError):
                await consumer.stop()
        await asyncio.sleep(_RETRY_S)


class RetrainRequests:
    """Reads retrain requests on demand, for a process that is busy between the calls."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: Any = None

    def newest(self, *, wait_ms: int) -> ModelRecord | None:
        """The newest unread request, None if there is none; waits for at most `wait_ms`.

        The first call reads the topic from its beginning. Raises ServiceUnavailable.
        """
        try:
            if self._consumer is None:
                self._consumer = self._connect()
            requests = [
                request
                for records in self._poll(wait_ms).values()
                for record in records
                if (request := ModelRecord.decode(record.value)) is not None
                and request.action == "retrain"
            ]
        except (KafkaError, OSError) as error:
            self.close()
            raise ServiceUnavailable(f"topic {MODELS.name}: {error!r}") from None
        return max(requests, key=lambda request: request.at_ms, default=None)

    def _poll(self, wait_ms: int) -> Mapping[Any, Any]:
        """Poll; what nobody can read is skipped, with what follows it so far."""
        try:
            polled: Mapping[Any, Any] = self._consumer.poll(timeout_ms=wait_ms)
        except (KafkaError, OSError):
            raise
        except UNREADABLE_BATCH as error:
            log.warning("control_batch_refused", reason=str(error)[:200])
            self._consumer.seek_to_end()
            return {}
        return polled

    def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(KafkaError, OSError):
                consumer.close()

    def _connect(self) -> Any:
        consumer = KafkaConsumer(
            **kafka_python_config(self._settings), enable_auto_commit=False, group_id=None
        )
        numbers = consumer.partitions_for_topic(MODELS.name)
        if not numbers:
            consumer.close()
            raise OSError("the topic does not exist; create it with surgecast topics create")
        partitions = [TopicPartition(MODELS.name, number) for number in numbers]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        return consumer
