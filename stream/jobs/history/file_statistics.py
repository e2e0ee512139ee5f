"""Keeps the statistics of a file's whole history: models know what is older than the store.

Axes: S = series, I = statistics that a model may inherit.
"""

from typing import Any, Final

from redis import Redis

from model.config import ModelConfig
from model.inference.network_states import dump_statistics
from model.inference.statistics_carrier import StatisticsCarrier
from stream.jobs.history.sparse_history import SparseHistory
from stream.serving.state_snapshots import Snapshots
from stream.settings import Settings
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import translate_store_errors

#: Rows of a portion, each a bucket of a series: 88 MB.
_ROWS: Final = 2_000_000
#: Share of the stored history that is carried over as well: as long as it is stored, the result
#: can be inherited.
_INTO_STORE: Final = 4
#: Buckets that are carried at most, the newest ones: two years of hours.
_MOST_BUCKETS: Final = 20_000


def keep_statistics(settings: Settings, client: Redis, history: SparseHistory) -> int:
    """Carry the series of a backfilled store over a history with roll-ups; return its buckets.

    0 if the store has all of them. Raises ServiceUnavailable.
    """
    config = ModelConfig(
        horizon=settings.model.horizon,
        bucket_ms=history.bucket_ms,
        holidays_country=settings.model.country or None,
        timezone=settings.window.timezone,
    )
    with translate_store_errors():
        tags: list[Tag] = [*range(settings.kafka.partitions), ROLLUPS]
        names = {tag: _series(client, tag) for tag in tags}
        span: Any = client.hmget(keys.of(ROLLUPS, "meta"), "first_bucket_ms", "closed_through_ms")
        if None in span:
            return 0
        carried = to_carry(history.start_ms, *map(int, span), bucket_ms=history.bucket_ms)
        if carried is None or not any(names.values()):
            return 0
        slot_of = {name: slot for slot, name in enumerate(history.series)}
        slots = [slot_of[name] for of_tag in names.values() for name in of_tag]
        carrier = StatisticsCarrier(config, len(slots))
        step_ms = max(1, _ROWS // len(slots)) * history.bucket_ms
        for start_ms in range(carried.start, carried.stop, step_ms):
            stop_ms = min(start_ms + step_ms, carried.stop)
            carrier.carry(history.dense(slots, start_ms=start_ms, end_ms=stop_ms), start_ms)
        snapshots = Snapshots(client, settings.states_path)
        first = 0
        for tag, of_tag in names.items():
            rows_SI = carrier.rows_SI[first : first + len(of_tag)].clone()
            snapshots.keep_statistics(
                tag, dump_statistics(rows_SI, config), config,
                through_ms=carried.stop, since_ms=carried.start,
            )  # fmt: skip
            first += len(of_tag)
        snapshots.close()
    return len(carried)


def to_carry(known_ms: int, first_ms: int, closed_ms: int, *, bucket_ms: int) -> range | None:
    """Starts of the buckets to carry: from `known_ms` on, and a part of the store's history.

    None if nothing older than the store is known. `first_ms` and `closed_ms` are the store's.

    >>> to_carry(0, 60, 140, bucket_ms=10), to_carry(60, 60, 140, bucket_ms=10)
    (range(0, 80, 10), None)
    """
    until_ms = first_ms + (closed_ms - first_ms) // bucket_ms // _INTO_STORE * bucket_ms
    since_ms = max(known_ms, until_ms - _MOST_BUCKETS * bucket_ms)
    return range(since_ms, until_ms, bucket_ms) if since_ms < first_ms else None


def _series(client: Redis, tag: Tag) -> list[str]:
    found: Any = client.lrange(keys.of(tag, "series"), 0, -1)
    return [name.decode() for name in found]
