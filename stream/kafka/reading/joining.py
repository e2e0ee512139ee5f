"""What keeps a consumer from reading: topics that do not exist, a broker that refuses it.

A client notices a topic that is created later only when its metadata expires, and an input that
joins late finds its buckets closed. So a role waits until its topics exist. aiokafka reports a
refusal once and then waits; a role that did not ask for it would run and read nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from stream.errors import UsageError
from stream.kafka.admin import partition_counts
from stream.settings import KafkaSettings, Settings, duration_text

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 0.5
SAY_EVERY_S: Final = 60.0
#: How long the other topics may take to appear after the first one that a role needs.
SETTLE_S: Final = 5.0

#: Returns the number of partitions of each topic, 0 for a missing one.
Look = Callable[[], Mapping[str, int]]

_WAYS_OUT: Final[dict[type[KafkaError], str]] = {
    InvalidSessionTimeoutError: (
        "it does not allow a kafka.session_timeout of {session}; set "
        "SURGECAST_KAFKA__SESSION_TIMEOUT between its group.min.session.timeout.ms and "
        "group.max.session.timeout.ms (6s and 30m unless configured)"
    ),
    InvalidGroupIdError: "kafka.group {group!r} is not a valid name; set SURGECAST_KAFKA__GROUP",
    InconsistentGroupProtocolError: (
        "kafka.group {group} has members of another kind; set another SURGECAST_KAFKA__GROUP"
    ),
    GroupAuthorizationFailedError: (
        "user {user} may not read as kafka.group {group}; grant READ on the group"
    ),
    TopicAuthorizationFailedError: "user {user} may not read {topics}; grant READ on the topics",
}


def wait_for_topics(settings: Settings, topics: Sequence[str], *, needed: str) -> None:
    """Wait until all topics exist; without those that `SETTLE_S` after `needed` still do not.

    Raises UsageError if one has another number of partitions than `kafka.partitions`,
    ServiceUnavailable if the broker does not answer.
    """
    found = wait_until_listed(lambda: partition_counts(settings, topics), needed=needed)
    expected = settings.kafka.partitions
    for topic, count in found.items():
        if count not in (0, expected):
            raise UsageError(
                f"topic {topic} has {count} partitions, but kafka.partitions is {expected}, and "
                f"all topics must agree: set SURGECAST_KAFKA__PARTITIONS to {count}, or create "
                "the topic again"
            )


def wait_for_source(settings: Settings, topic: str) -> None:
    """Wait until a topic of the shop's own exists. Raises ServiceUnavailable."""
    wait_until_listed(lambda: partition_counts(settings, [topic]), needed=topic, advice="create it")


def wait_until_listed(
    look: Look,
    *,
    needed: str,
    advice: str = "run `surgecast topics create`",
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Mapping[str, int]:
    """Call `look` until no topic is missing, or `needed` is there and no other has come lately."""
    missing: list[str] = []
    said_s = changed_s = -SAY_EVERY_S
    while True:
        counts = look()
        before, missing = missing, [topic for topic, count in counts.items() if not count]
        if not missing:
            return counts
        if missing != before:
            changed_s = now_s()
        if needed not in missing and now_s() - changed_s >= SETTLE_S:
            reason = f"they do not exist; {advice}"
            log.warning("topics_left_out", topics=missing, reason=reason)
            return counts
        if now_s() - said_s >= SAY_EVERY_S:
            said_s = now_s()
            reason = f"waiting until they exist; {advice}"
            log.warning("topics_missing", topics=missing, reason=reason)
        sleep(LOOK_EVERY_S)


def group_refusal(error: KafkaError, kafka: KafkaSettings, *, group: str) -> UsageError | None:
    """Return the refusal that an error is; None for an error that passes.

    >>> kafka = KafkaSettings(session_timeout="1h")
    >>> str(group_refusal(InvalidSessionTimeoutError(), kafka, group="g"))[:75]
    'the broker refuses this consumer: it does not allow a kafka.session_timeout'
    >>> group_refusal(KafkaError(), kafka, group="g") is None
    True
    """
    for kind, text in _WAYS_OUT.items():
        if isinstance(error, kind):
            reason = text.format(
                session=duration_text(kafka.session_timeout),
                group=group,
                user=kafka.username or "anonymous",
                topics=error.args[0] if error.args else "a topic",
            )
            return UsageError(f"the broker refuses this consumer: {reason}")
    return None
