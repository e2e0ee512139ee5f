"""Watches the registry's champion and warms it up aside, while the model before it serves.

The pointer is polled: a file and an object store alike can only be polled. Whatever goes wrong on
the way keeps the model that serves; the reason is logged once per candidate.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from model.errors import ModelError
from stream.errors import ServiceUnavailable, SurgecastError
from stream.registry import Registry
from stream.serving import Serving
from stream.settings import ModelSettings
from stream.state.keys import Tag

log = structlog.get_logger(__name__)


class ChampionWatch:
    """Brings the registry's champion into `serving`; `tags` names the partitions to warm up."""

    def __init__(
        self,
        registry: Registry,
        serving: Serving,
        settings: ModelSettings,
        *,
        bucket_ms: int,
        tags: Callable[[], list[Tag]],
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._settings = settings
        self._bucket_ms = bucket_ms
        self._tags = tags
        self._seen: str | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="warm-up")

    async def run(self, *, every_s: float) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(self._thread, self.look)
            await asyncio.sleep(every_s)

    def look(self) -> None:
        """Prepare the champion if it is a new one that fits."""
        try:
            champion = self._registry.champion()
            if champion is None or champion == self._seen:
                return
            self._seen = champion
            forecaster = self._registry.load(champion, self._settings.device)
            if forecaster.bucket_ms != self._bucket_ms:
                log.warning(
                    "champion_refused",
                    model_id=champion,
                    reason=f"made for buckets of {forecaster.bucket_ms} ms, not {self._bucket_ms}",
                )
                return
            self._serving.prepare(forecaster, self._tags())
        except ServiceUnavailable as error:
            self._seen = None  # it fits; the store will answer again
            log.warning("champion_waits", reason=str(error))
        except (ModelError, SurgecastError, OSError) as error:
            log.warning("champion_refused", model_id=self._seen, reason=str(error))
