"""Checks that stored offsets belong to this broker and its topics.

An offset is valid only within one topic of one cluster, so the store keeps both ids with it. When a
worker takes over a partition, this check finds a recreated topic, another cluster, a log shorter
than the stored offset, and records deleted before they were counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from faust.types import TP

from stream.errors import IncompatibleState
from stream.kafka.admin import admin_client
from stream.settings import Settings
from stream.topics import HEARTBEATS

#: Cluster id of the in-memory broker, whose end offsets are not exact.
_NO_EXACT_END = "tansu_cluster"
_NO_ID = "00000000-0000-0000-0000-000000000000"

WAY_OUT = (
    "Correct the broker or the store this worker is given, or run `surgecast worker --adopt` once "
    "to accept the broker as it is (features are kept, reading starts at the earliest record)"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Ids of the cluster and of topics (name → id), where the broker returns them."""

    cluster: str | None = None
    topics: Mapping[str, str] = field(default_factory=dict)

    def of(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the fields to store with the offsets of `topics`.

        >>> Identity("c", {"orders": "1"}).of(["orders", "clicks"])
        {'topic_id:orders': '1', 'cluster': 'c'}
        """
        fields = {f"topic_id:{name}": self.topics[name] for name in topics if name in self.topics}
        return fields | ({"cluster": self.cluster} if self.cluster else {})


@dataclass(frozen=True, slots=True)
class BrokerOffsets:
    """The broker's identity, with the earliest and end offset of each requested partition."""

    identity: Identity = Identity()
    earliest: Mapping[TP, int] = field(default_factory=dict)
    end: Mapping[TP, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A stored offset that is not valid on this broker, and why."""

    tp: TP
    reason: str


def read_identity(settings: Settings, topics: Iterable[str]) -> Identity:
    """Read the broker's ids. Blocks; raises ServiceUnavailable when it does not answer."""
    with admin_client(settings) as client:
        cluster = client.describe_cluster().get("cluster_id")
        described = client.describe_topics(list(topics))
    ids = {
        topic["name"]: str(topic["topic_id"])
        for topic in described
        if topic.get("topic_id") and str(topic["topic_id"]) != _NO_ID
    }
    return Identity(cluster or None, ids)


def mismatches(number: int, meta: Mapping[str, str], broker: BrokerOffsets) -> list[Mismatch]:
    """Return the stored offsets of partition `number` from which reading cannot continue.

    >>> stored = {"offset:orders": "7", "topic_id:orders": "old"}
    >>> [m.reason for m in mismatches(0, stored, BrokerOffsets(Identity("c", {"orders": "new"})))]
    ['offset 7 is stored for topic id old, but the broker has topic id new: it was recreated']
    """
    found = []
    for name, value in meta.items():
        if name.startswith("offset:"):
            topic, offset = name.removeprefix("offset:"), int(value)
            reason = _reason(TP(topic, number), offset, meta, broker)
            if reason is not None:
                found.append(Mismatch(TP(topic, number), reason))
    return found


def _reason(tp: TP, offset: int, meta: Mapping[str, str], broker: BrokerOffsets) -> str | None:
    identity = broker.identity
    cluster, topic_id = meta.get("cluster"), meta.get(f"topic_id:{tp.topic}")
    if cluster and identity.cluster and cluster != identity.cluster:
        return (
            f"offset {offset} is stored for cluster {cluster}, "
            f"but the broker is of cluster {identity.cluster}"
        )
    actual_id = identity.topics.get(tp.topic)
    if topic_id and actual_id and topic_id != actual_id:
        return (
            f"offset {offset} is stored for topic id {topic_id}, "
            f"but the broker has topic id {actual_id}: it was recreated"
        )
    end = broker.end.get(tp)
    if end is not None and offset > end and identity.cluster != _NO_EXACT_END:
        return f"offset {offset} is stored, but the topic ends at offset {end}"
    earliest = broker.earliest.get(tp)
    # Deleted heartbeats are harmless: newer ones supersede them.
    if earliest is not None and offset < earliest and tp.topic != HEARTBEATS.name:
        return (
            f"offset {offset} is stored, but the earliest record left is {earliest}: "
            f"{earliest - offset} were deleted before they were counted"
        )
    return None


def refuse(found: list[Mismatch]) -> None:
    """Raise IncompatibleState, naming the first mismatch, if there is any."""
    if found:
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise IncompatibleState(
            f"{first.tp.topic}-{first.tp.partition}: {first.reason}{more}. {WAY_OUT}"
        )
