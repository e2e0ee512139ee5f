"""Creates and describes the product's topics on a broker."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.structs import TopicPartition

from stream.errors import ServiceUnavailable
from stream.kafka.clients import kafka_python_config, require_broker
from stream.settings import Settings, duration_text
from stream.topics import TOPICS, Topic

_SHOWN_CONFIGS = ("cleanup.policy", "retention.ms")


@dataclass(frozen=True, slots=True)
class TopicState:
    """State of one topic on the broker; `partitions` is 0 if it is missing.

    `config` is empty if the broker does not return it (the embedded one does not). `problem` is
    what must be corrected, or None.
    """

    name: str
    partitions: int
    replication: int
    config: dict[str, str]
    problem: str | None


@contextmanager
def admin_client(settings: Settings, *, timeout_ms: int = 10_000) -> Iterator[KafkaAdminClient]:
    """Connect an admin client and close it on exit.

    Raises ServiceUnavailable when the broker does not answer, UsageError when none is named.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # hides its retries; we raise one error
    address = require_broker(settings)
    config = kafka_python_config(settings)
    try:
        client = KafkaAdminClient(
            **config,
            client_id="surgecast-admin",
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
        )
    except (KafkaError, OSError, ValueError) as error:
        raise ServiceUnavailable(
            f"broker {address} does not answer ({_reason(error)}); start it or correct "
            "SURGECAST_KAFKA__BOOTSTRAP_SERVERS"
        ) from None
    try:
        yield client
    except KafkaError as error:
        raise ServiceUnavailable(f"broker {address}: {_reason(error)}") from None
    finally:
        client.close()


def create_topics(settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[str]:
    """Create missing topics with `kafka.partitions` partitions each; return their names.

    Existing topics are not changed; `describe_topics` reports what is wrong with them.
    Raises ServiceUnavailable when the broker does not answer or refuses.
    """
    created = []
    with admin_client(settings) as client:
        present = set(client.list_topics())
        for topic in topics:
            if topic.name in present:
                continue
            new_topic = NewTopic(
                topic.name,
                num_partitions=settings.kafka.partitions,
                replication_factor=settings.kafka.replication,
                topic_configs=topic.config,
            )
            try:
                client.create_topics([new_topic])
            except TopicAlreadyExistsError:
                continue  # another process created it first
            created.append(topic.name)
        if created:
            client.wait_for_topics(created)
    return created


def describe_topics(settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[TopicState]:
    """Return the state of each topic on the broker, in the given order.

    Raises ServiceUnavailable when the broker does not answer.
    """
    listed = list(topics)
    with admin_client(settings) as client:
        present = {topic["name"]: topic for topic in client.describe_topics()}
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, topic.name)
            for topic in listed
            if topic.name in present
        ]
        configs = client.describe_configs(resources).get("topic", {}) if resources else {}
    return [
        _state(settings, topic, present.get(topic.name), configs.get(topic.name) or {})
        for topic in listed
    ]


def partition_counts(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of each topic, 0 if it does not exist.

    Needs no right to read configurations, unlike `describe_topics`. Raises ServiceUnavailable when
    the broker does not answer.
    """
    with admin_client(settings) as client:
        present = {topic["name"]: len(topic["partitions"]) for topic in client.describe_topics()}
    return {name: present.get(name, 0) for name in topics}


def earliest_offsets(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return the earliest offset of each topic partition; missing topics are left out.

    Raises ServiceUnavailable when the broker does not answer.
    """
    with admin_client(settings):  # raises a one-line error if the broker does not answer
        consumer = KafkaConsumer(**kafka_python_config(settings), enable_auto_commit=False)
    try:
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        earliest = consumer.beginning_offsets(partitions) if partitions else {}
    except KafkaError as error:
        address = require_broker(settings)
        raise ServiceUnavailable(f"broker {address}: {_reason(error)}") from None
    finally:
        consumer.close()
    return {(tp.topic, tp.partition): offset for tp, offset in earliest.items()}


def _state(
    settings: Settings, topic: Topic, found: dict[str, Any] | None, configs: dict[str, Any]
) -> TopicState:
    if found is None:
        return TopicState(topic.name, 0, 0, {}, "missing; run `surgecast topics create`")
    partitions = found["partitions"]
    config = {name: str(_value(configs[name])) for name in _SHOWN_CONFIGS if name in configs}
    problem = None
    if len(partitions) != settings.kafka.partitions:
        problem = (
            f"has {len(partitions)} partitions, kafka.partitions is {settings.kafka.partitions}; "
            "all topics must agree: recreate it or correct SURGECAST_KAFKA__PARTITIONS"
        )
    elif any(partition["leader_id"] < 0 for partition in partitions):
        problem = "a partition has no leader; check the broker"
    elif config and config.get("cleanup.policy") != topic.config["cleanup.policy"]:
        expected = topic.config["cleanup.policy"]
        problem = f"cleanup.policy is {config.get('cleanup.policy')}, not {expected}"
    replication = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
    return TopicState(topic.name, len(partitions), replication, config, problem)


def _value(entry: Any) -> Any:
    return entry.get("value") if isinstance(entry, dict) else entry


def retention_text(state: TopicState, topic: Topic) -> str:
    """Retention of a topic as text: the broker's configuration, else that of the table.

    >>> from stream.topics import CATALOG, ORDERS
    >>> retention_text(TopicState("orders", 4, 1, {}, None), ORDERS)
    '7d'
    >>> retention_text(TopicState("catalog", 4, 1, {}, None), CATALOG)
    'newest of each key'
    """
    if (state.config or topic.config).get("cleanup.policy") == "compact":
        return "newest of each key"
    milliseconds = (state.config or topic.config).get("retention.ms")
    return duration_text(int(milliseconds)) if milliseconds else "-"


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return text.removeprefix("[Error -1] ")[:200] or type(error).__name__
