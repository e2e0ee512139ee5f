"""What a trainer hands over with a model: the states of all partitions, warm.

Weeks of stored history are stepped once, in the trainer, at low priority and before the model
becomes champion. A worker that takes the model into service then loads its states and steps them
over the few buckets that have closed since.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import structlog
from redis import Redis

from model.errors import HistoryTooShort, IncompatibleCheckpoint
from model.incremental import NetworkForecaster
from stream.carried import ServedModel
from stream.errors import ServiceUnavailable
from stream.snapshots import Snapshots
from stream.state import keys
from stream.state.history import StoredHistory, read_history
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import store_answers
from stream.static import static_reader

log = structlog.get_logger(__name__)


def hand_over(client: Redis, states_path: str, forecaster: NetworkForecaster) -> None:
    """Keep the states of all partitions for this model, each up to its newest closed bucket.

    They are a cache: where the store is away or of other buckets, workers warm up by themselves,
    and the reason is logged.
    """
    began_s = time.monotonic()
    snapshots = Snapshots(client, states_path)
    try:
        handed = sum(_warm(client, tag, forecaster, snapshots) for tag in _tags(client))
    except (ServiceUnavailable, HistoryTooShort, IncompatibleCheckpoint) as error:
        log.warning("states_not_handed_over", model_id=forecaster.model_id, reason=str(error))
        return
    finally:
        snapshots.close()
    seconds = round(time.monotonic() - began_s, 1)
    log.info("states_handed_over", model_id=forecaster.model_id, partitions=handed, seconds=seconds)


def _tags(client: Redis) -> list[Tag]:
    with store_answers():
        found: Any = client.get(keys.info())
    return [*range(int(json.loads(found or b"{}").get("partitions", 0))), ROLLUPS]


def _warm(client: Redis, tag: Tag, forecaster: NetworkForecaster, snapshots: Snapshots) -> bool:
    """Carry a new model's states to before the newest bucket of a partition, and keep them."""

    def history(tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        width = forecaster.bucket_ms
        with store_answers():
            yield from read_history(client, tag, bucket_ms=width, from_ms=from_ms, to_ms=to_ms)

    model = ServedModel(forecaster)
    static = static_reader(client)
    if model.approach(tag, None, history, static=static, snapshots=snapshots) is None:
        return False
    carried = model.carried[tag]
    return snapshots.save(tag, forecaster, carried.states, carried.through_ms)
