"""`surgecast bench store`: memory of the store, recovery of a worker, reads of single series.

Fills a Valkey as workers do (`store_load.py`), then measures: memory from INFO and by kind of key;
each step of a worker that is assigned all partitions; and reads of the history of single series as
in the API.
"""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import numpy as np
import redis
import redis.asyncio as aioredis

from model.config import ModelConfig
from model.inference.forecaster import NetworkForecaster
from stream.bench.report import Row
from stream.bench.store_load import Show, StoreLoad, fill
from stream.errors import UsageError
from stream.ingest.restore import restore
from stream.ingest.rollups import Rollups
from stream.ops.embedded import embedded_store
from stream.readside.reader import Reader
from stream.serving.carried_states import SNAPSHOT_EVERY
from stream.serving.model_server import ModelServer
from stream.serving.state_snapshots import Snapshots
from stream.settings import Settings
from stream.state.history import StoredHistory, read_history
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import RedisStore

#: Memory budget: bytes per series and bucket, and further bytes per series.
BUCKET_BYTES, SERIES_BYTES = 40, 2_048
_READS = 2_000


def bench_store(
    settings: Settings, *, series: int, buckets: int, notify: Callable[[str], None], show: Show
) -> list[Row]:
    """Fill a store, measure its memory, recovery and reads, then empty it."""
    retention_ms = buckets * settings.window.bucket
    settings = settings.model_copy(
        update={"state": settings.state.model_copy(update={"retention": retention_ms})}
    )
    load = StoreLoad(series, buckets, settings.kafka.partitions, settings.window.bucket)
    forecaster = _forecaster(settings)
    with _empty_store(settings) as url, redis.Redis.from_url(url) as client:
        began_s = time.monotonic()
        fill(url, settings, load, forecaster, show=show)
        notify(f"store: filled in {time.monotonic() - began_s:.0f} s")
        rows = _memory(client, load)
        notify("store: recovery with snapshots of the states, and of one partition without")
        rows += _recovery(url, client, settings, load, forecaster)
        notify("store: reading")
        rows += _reads(client, load)
    return rows


@contextmanager
def _empty_store(settings: Settings) -> Iterator[str]:
    """Yield the URL of the configured store, or of a new one if none is configured; empty it again.

    Raises UsageError if the configured store is not empty.
    """
    if settings.redis.url is None:
        with embedded_store(settings) as store:
            yield store.url
        return
    with redis.Redis.from_url(settings.redis.url) as client:
        if client.dbsize():
            raise UsageError(
                "the store at SURGECAST_REDIS__URL is not empty: set it to an empty store, "
                "or unset it to start one"
            )
        try:
            yield settings.redis.url
        finally:
            client.flushdb()


def _forecaster(settings: Settings) -> NetworkForecaster:
    """An untrained default network: the weights do not change the cost."""
    import torch

    from model.networks.quantile_network import QuantileNetwork

    torch.manual_seed(0)
    config = ModelConfig(
        horizon=settings.model.horizon,
        bucket_ms=settings.window.bucket,
        quantiles=settings.model.quantiles,
        architecture=settings.model.architecture,
    )
    return NetworkForecaster(QuantileNetwork(config), "bench")


def _memory(client: redis.Redis, load: StoreLoad) -> list[Row]:
    info = client.info("memory")
    used = int(info["used_memory"])
    by_kind: Counter[str] = Counter()
    with client.pipeline(transaction=False) as pipe:
        names = list(client.scan_iter(count=10_000))
        for at in range(0, len(names), 1_000):
            chunk = names[at : at + 1_000]
            for name in chunk:
                pipe.memory_usage(name, samples=0)
            for name, size in zip(chunk, pipe.execute(), strict=True):
                parts = name.decode().split(":")
                by_kind[":".join(part for part in parts[2:] if not part.isdecimal())] += size
    cells = load.series * load.buckets
    closed = by_kind.pop("closed", 0)
    other = {kind: round(size / load.series, 1) for kind, size in by_kind.most_common()}
    allowed = BUCKET_BYTES * cells + SERIES_BYTES * load.series
    facts = {
        "series": load.series, "buckets": load.buckets, "partitions": load.partitions,
        "allocator": info["mem_allocator"], "allowed": allowed,
    }  # fmt: skip
    return [
        Row("memory", used, "bytes", facts),
        Row("memory_of_allowed", round(used / allowed, 4), "share"),
        Row("closed", round(closed / cells, 2), "bytes/series/bucket"),
        Row("beside", round((used - closed) / load.series, 1), "bytes/series", other),
    ]


def _recovery(
    url: str, client: redis.Redis, settings: Settings, load: StoreLoad,
    forecaster: NetworkForecaster,
) -> list[Row]:  # fmt: skip
    tags: list[Tag] = [*range(load.partitions), ROLLUPS]
    reading = _Reading(client, load)
    with TemporaryDirectory(prefix="surgecast-states-") as folder:
        snapshots = Snapshots(client, folder)
        saved = sum(_save_states(reading, snapshots, forecaster, tag, load) for tag in tags)
        snapshots.close()
        restored_s = _timed(lambda: asyncio.run(_restore(url, settings, load)))
        loaded = Snapshots(client, folder)
        serving = ModelServer(forecaster, reading.history, snapshots=loaded)
        reading.waited_s = 0.0
        served_s = _timed(lambda: [serving.advance(tag, load.end_ms) for tag in tags])
        waited_s = reading.waited_s
        loaded.close()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    cold = ModelServer(forecaster, reading.history)
    cold_s = _timed(lambda: cold.advance(0, load.end_ms))
    return [
        Row("recovery", round(restored_s + served_s, 2), "s", {"rss_peak_mb": peak_mb}),
        Row("recovery_restore", round(restored_s, 2), "s"),
        Row("recovery_states", round(served_s, 2), "s",
            {"read_s": round(waited_s, 2), "kept_mb": saved >> 20,
             "buckets": min(SNAPSHOT_EVERY, load.buckets)}),
        Row("cold_partition", round(cold_s, 2), "s", {"of_partitions": load.partitions}),
    ]  # fmt: skip


class _Reading:
    """Reads stored history like a worker, and measures how long the caller waits for it."""

    def __init__(self, client: redis.Redis, load: StoreLoad) -> None:
        self._client = client
        self._load = load
        self.waited_s = 0.0

    def history(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        """Stored buckets in portions."""
        portions = read_history(
            self._client, tag, bucket_ms=self._load.bucket_ms, from_ms=from_ms, to_ms=to_ms
        )
        while True:
            began_s = time.perf_counter()
            portion = next(portions, None)
            self.waited_s += time.perf_counter() - began_s
            if portion is None:
                return
            yield portion


def _save_states(
    reading: _Reading, snapshots: Snapshots, forecaster: NetworkForecaster,
    tag: Tag, load: StoreLoad,
) -> int:  # fmt: skip
    """Save the oldest snapshot that a worker may find; return its size in bytes.

    The states are computed from one bucket, since their values do not change the cost.
    """
    through_ms = load.end_ms - min(SNAPSHOT_EVERY, load.buckets - 1) * load.bucket_ms
    states = forecaster.new_states(1)
    for portion in reading.history(tag, through_ms - load.bucket_ms, through_ms):
        forecaster.warm_up(states, portion.values_TSF, portion.start_ms)
    snapshots.save(tag, forecaster, states, through_ms, since_ms=through_ms - load.bucket_ms)
    return states.size * states.bytes_per_series


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


async def _restore(url: str, settings: Settings, load: StoreLoad) -> None:
    client = aioredis.Redis.from_url(url)
    store = RedisStore(client)
    retention_ms = settings.state.retention
    for number in range(load.partitions):
        await store.acquire(number)
        await restore(store, number, settings.window, retention_ms=retention_ms)
    rollups = Rollups(store, load.partitions, bucket_ms=load.bucket_ms, retention_ms=retention_ms)
    await rollups.acquire()
    await client.aclose()


def _reads(client: redis.Redis, load: StoreLoad) -> list[Row]:
    reader = Reader(client)
    reader.refresh()
    names = [name for name, _, _ in reader.series()]
    chosen = np.random.default_rng(1).choice(len(names), _READS)
    delays_s = []
    for place in chosen.tolist():
        began_s = time.perf_counter()
        history = reader.history(names[place], 0, load.end_ms)
        delays_s.append(time.perf_counter() - began_s)
        if len(history.start_T) != load.buckets:
            raise AssertionError(f"{names[place]}: {len(history.start_T)} buckets")
    p50, p99 = (float(q) * 1_000 for q in np.quantile(delays_s, (0.5, 0.99)))
    facts = {"buckets": load.buckets, "reads": _READS}
    return [
        Row("history_read_p50", round(p50, 3), "ms", facts),
        Row("history_read_p99", round(p99, 3), "ms", facts),
    ]
