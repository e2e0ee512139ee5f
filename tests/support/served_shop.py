"""A stocked store, a registry and the serving side of a worker, without its event loop."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from model.baselines.exponential_smoothing import SmoothingForecaster
from model.contract import QuantileForecast
from model.durations import HOUR_MS
from stream.registry.model_registry import Registry
from stream.registry.served_models import ServedModels
from stream.serving.champion_watch import ChampionWatch
from stream.serving.model_server import ModelServer
from stream.serving.store_reads import read_forecast
from stream.settings import ModelSettings
from stream.state.history import StoredHistory, load_history
from stream.state.keys import ROLLUPS, Tag
from tests.support.model_cases import random_model
from tests.support.seeding import QUANTILES, Shop, stocked

TAGS: list[Tag] = [0, 1, ROLLUPS]
FALLBACK = "exponential-smoothing"


class ServedShop:
    """A seeded shop, a registry, and a model server with its champion watch."""

    def __init__(self, redis: Redis, folder: Path) -> None:
        self.shop: Shop = stocked(redis, days=3, n_series=12, partitions=2, horizon=6)
        self.registry = Registry(str(folder / "registry"))
        self.folder = folder / "registry"
        self.now_s = 0.0
        self.reads = 0
        self.between: Callable[[], None] = lambda: None
        self.redis = redis
        self.served: dict[Tag, list[QuantileForecast]] = {tag: [] for tag in TAGS}
        self.start()

    def start(self, **limits: Any) -> None:
        """A new worker; `limits` are those of `ModelServer`."""
        fallback = SmoothingForecaster(horizon=6, bucket_ms=HOUR_MS, quantiles=QUANTILES)
        self.serving = ModelServer(fallback, self.history, clock_s=lambda: self.now_s, **limits)
        settings = ModelSettings(horizon=6, quantiles=QUANTILES, device="cpu", pretrained=False)
        self.watch = ChampionWatch(
            ServedModels(self.registry, settings, bucket_ms=HOUR_MS),
            self.serving,
            settings,
            bucket_ms=HOUR_MS,
            tags=lambda: TAGS,
            served=lambda tag: read_forecast(self.redis, tag),
            clock_s=lambda: self.now_s,
        )

    def history(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        """The stored buckets, a few at a time."""
        self.reads += 1
        whole = load_history(self.redis, tag, bucket_ms=HOUR_MS, from_ms=from_ms, to_ms=to_ms)
        if whole is None:
            return
        starts = range(whole.start_ms, whole.end_ms, HOUR_MS)
        for at in range(0, len(starts), 20):
            part = starts[at : at + 20]
            self.between()
            last = part.stop == whole.end_ms
            values_TSF = whole.values_TSF[at : at + 20]
            yield StoredHistory(part.start, part.stop, whole.series, values_TSF, last)

    def publish(self, seed: int, **more: Any) -> str:
        """A model with random weights in the registry."""
        return self.registry.publish(random_model(seed, span_end_ms=self.shop.start_ms), **more)

    def turn(self) -> bool:
        """What the output loop does at each turn: take over, then serve all partitions."""
        swapped = self.serving.swap_in()
        for tag in TAGS:
            forecast = self.serving.advance(tag, self.shop.closed_through_ms)
            if forecast is not None:
                self.served[tag].append(forecast)
        return swapped

    def close(self) -> None:
        """One more bucket closes and is served."""
        self.shop.close()
        self.turn()

    def models_served(self) -> list[list[str]]:
        """Model ids of all forecasts, by partition."""
        return [[forecast.model_id for forecast in made] for made in self.served.values()]
