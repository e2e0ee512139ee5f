"""Hands model states over to the workers: warms them up in the trainer and stores them.

These are states of the network, not closed buckets (`stream/ingest/handoff.py`). The trainer steps
the model through weeks of stored history, at low priority and before the model becomes champion. A
worker then loads the states and steps them over the few buckets that have closed since.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import structlog
from redis import Redis

from model.errors import HistoryTooShort, IncompatibleCheckpoint
from model.inference.forecaster import NetworkForecaster
from stream.errors import ServiceUnavailable
from stream.jobs.archive.history import archive_of
from stream.jobs.training.older_statistics import rebuild_statistics
from stream.serving.carried_states import StatefulModel
from stream.serving.state_snapshots import Snapshots
from stream.serving.static_features import static_reader
from stream.serving.stored_plans import StoredPlans
from stream.state import keys
from stream.state.history import StoredHistory, read_history
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import translate_store_errors

log = structlog.get_logger(__name__)


def hand_over_states(
    client: Redis, states_path: str, forecaster: NetworkForecaster, *, archive: str | None = None
) -> None:
    """Store this model's states of all partitions, each up to its newest closed bucket.

    Statistics come from those kept or from `archive`, by default the one filled from this store,
    empty for none. States are only a cache: if the store is unavailable or has another bucket
    width, the reason is logged and workers warm up themselves.
    """
    began_s = time.monotonic()
    snapshots = Snapshots(client, states_path)
    try:
        with translate_store_errors():
            found: Any = client.get(keys.info())
            partitions = int(json.loads(found or b"{}").get("partitions", 0))
            warm_up = _WarmUp(client, partitions, bucket_ms=forecaster.bucket_ms)
            tags: list[Tag] = [*range(partitions), ROLLUPS]
            archive = archive_of(client) if archive is None else archive
            if archive:
                for tag in tags:
                    rebuild_statistics(client, snapshots, tag, forecaster.config, archive)
            saved = sum(warm_up.run(tag, forecaster, snapshots) for tag in tags)
    except (ServiceUnavailable, HistoryTooShort, IncompatibleCheckpoint) as error:
        log.warning("states_not_handed_over", model_id=forecaster.model_id, reason=str(error))
        return
    finally:
        snapshots.close()
    seconds = round(time.monotonic() - began_s, 1)
    log.info("states_handed_over", model_id=forecaster.model_id, partitions=saved, seconds=seconds)


class _WarmUp:
    """Warm-up from the history, static features and plans in the store."""

    def __init__(self, client: Redis, partitions: int, *, bucket_ms: int) -> None:
        self._client = client
        self._bucket_ms = bucket_ms
        self._static = static_reader(client)
        self._plans = StoredPlans(client, partitions, bucket_ms=bucket_ms)

    def run(self, tag: Tag, forecaster: NetworkForecaster, snapshots: Snapshots) -> bool:
        """Step the states up to a partition's newest bucket and save them. True if saved."""
        model = StatefulModel(forecaster)
        ready = model.catch_up(
            tag, None, self._history,
            static=self._static, plans=self._plans, snapshots=snapshots,
        )  # fmt: skip
        if ready is None:
            return False
        carried = ready.carried
        return snapshots.save(
            tag, forecaster, carried.states, carried.through_ms, since_ms=carried.since_ms
        )

    def _history(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        yield from read_history(
            self._client, tag, bucket_ms=self._bucket_ms, from_ms=from_ms, to_ms=to_ms
        )
