"""Topics by kafka-python's admin client: create them from the table, say what a broker has.

`client_config` is what any kafka-python client of the product starts from.
"""

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
from stream.kafka.clients import bootstrap_servers, client_config
from stream.settings import Settings, duration_text
from stream.topics import TOPICS, Topic

_SHOWN_CONFIGS = ("cleanup.policy", "retention.ms")


@dataclass(frozen=True, slots=True)
class TopicState:
    """What the broker says of one topic of the table. `partitions` is 0 where it is missing.

    `config` is empty where the broker does not tell (the embedded one does not).
    """

    name: str
    partitions: int
    replication: int
    config: dict[str, str]
    problem: str | None


@contextmanager
def admin_client(settings: Settings, *, timeout_ms: int = 10_000) -> Iterator[KafkaAdminClient]:
    """Connected admin client, closed on exit. Raises ServiceUnavailable when nobody answers."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # its retries; we say it in one line
    address = bootstrap_servers(settings)
    try:
        client = KafkaAdminClient(
            **client_config(settings),
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
    """Create what is missing of `topics`, `kafka.partitions` each; return the names created.

    An existing topic is left as it is (see `describe_topics` for what is wrong with it).
    Raises ServiceUnavailable when the broker does not answer or refuses.
    """
    created = []
    with admin_client(settings) as client:
        present = set(client.list_topics())
        for topic in topics:
            if topic.name in present:
                continue
            wanted = NewTopic(
                topic.name,
                num_partitions=settings.kafka.partitions,
                replication_factor=settings.kafka.replication,
                topic_configs=topic.config,
            )
            try:
                client.create_topics([wanted])
            except TopicAlreadyExistsError:
                continue  # another process was faster
            created.append(topic.name)
        if created:
            client.wait_for_topics(created)
    return created


def describe_topics(settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[TopicState]:
    """State of each of `topics` on the broker, in their order, with what is wrong with it.

    Raises ServiceUnavailable when the broker does not answer.
    """
    wanted = list(topics)
    with admin_client(settings) as client:
        present = {topic["name"]: topic for topic in client.describe_topics()}
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, topic.name)
            for topic in wanted
            if topic.name in present
        ]
        told = client.describe_configs(resources).get("topic", {}) if resources else {}
    return [
        _state(settings, topic, present.get(topic.name), told.get(topic.name) or {})
        for topic in wanted
    ]


def earliest_offsets(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """First offset the broker still has, by topic and partition; missing topics are left out.

    Raises ServiceUnavailable when the broker does not answer.
    """
    with admin_client(settings):  # it says in one line who does not answer
        consumer = KafkaConsumer(**client_config(settings), enable_auto_commit=False)
    try:
        places = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        found = consumer.beginning_offsets(places) if places else {}
    except KafkaError as error:
        address = bootstrap_servers(settings)
        raise ServiceUnavailable(f"broker {address}: {_reason(error)}") from None
    finally:
        consumer.close()
    return {(place.topic, place.partition): offset for place, offset in found.items()}


def _state(
    settings: Settings, topic: Topic, found: dict[str, Any] | None, told: dict[str, Any]
) -> TopicState:
    if found is None:
        return TopicState(topic.name, 0, 0, {}, "missing; run `surgecast topics create`")
    partitions = found["partitions"]
    config = {name: str(_value(told[name])) for name in _SHOWN_CONFIGS if name in told}
    problem = None
    if len(partitions) != settings.kafka.partitions:
        problem = (
            f"has {len(partitions)} partitions, kafka.partitions is {settings.kafka.partitions}; "
            "all topics must agree: recreate it or correct SURGECAST_KAFKA__PARTITIONS"
        )
    elif any(partition["leader_id"] < 0 for partition in partitions):
        problem = "a partition has no leader; look at the broker"
    elif config and config.get("cleanup.policy") != topic.config["cleanup.policy"]:
        wanted = topic.config["cleanup.policy"]
        problem = f"cleanup.policy is {config.get('cleanup.policy')}, not {wanted}"
    replication = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
    return TopicState(topic.name, len(partitions), replication, config, problem)


def _value(entry: Any) -> Any:
    return entry.get("value") if isinstance(entry, dict) else entry


def retention_text(state: TopicState, topic: Topic) -> str:
    """How long records stay, for people: what the broker told, else what the table asks for.

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
