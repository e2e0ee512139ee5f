"""Brings the registry's champion into service, while another model serves.

A record on the topic `models` triggers a look at the registry, which is polled as well: files and
object stores do not notify. A new champion is loaded in the background. A throttled thread
warms up its states, and checks its first forecasts against those being served. Only then is it
staged. Whatever goes wrong, the present model stays; the reason is logged once, kept in the
registry's audit log and shown with the statistics. A champion that failed is tried again, at
growing intervals.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog
import torch

from model.contract import QuantileForecast
from model.errors import ModelError
from model.evaluation.sanity_check import find_fault
from model.inference.forecaster import Forecaster, NetworkForecaster
from stream.errors import ChampionRefused, ServiceUnavailable, SurgecastError
from stream.registry.served_models import ChampionSource
from stream.serving.carried_states import ReadyToStep
from stream.serving.model_server import ModelServer
from stream.serving.serving_state import Candidate
from stream.settings import ModelSettings
from stream.state.keys import Tag
from stream.telemetry import SWAPS, WARM_UP

log = structlog.get_logger(__name__)

#: How much longer the warm-up rests than it works, while another network serves. It rests instead
#: of running at low priority: a thread preempted with the interpreter's lock halts the ingest.
_REST: Final = 2.0
_FIRST_RETRY_S: Final = 30.0
_LAST_RETRY_S: Final = 600.0
#: Closes that may come in while a candidate catches up with the newest one.
_CATCH_UPS: Final = 8
#: Largest distance, in buckets, between the origins of two forecasts that are compared.
_COMPARABLE: Final = 2


@dataclass(slots=True)
class _Attempt:
    """The last attempt to bring a champion into service."""

    model_id: str
    retry_at_s: float
    wait_s: float = _FIRST_RETRY_S
    fault: str = ""


class ChampionWatch:
    """Stages the registry's champion in `server`.

    `tags` returns the partitions to warm up, `served` reads the forecast of one being served.
    """

    def __init__(
        self,
        registry: ChampionSource,
        server: ModelServer,
        settings: ModelSettings,
        *,
        bucket_ms: int,
        tags: Callable[[], list[Tag]],
        served: Callable[[Tag], QuantileForecast | None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._server = server
        self._settings = settings
        self._bucket_ms = bucket_ms
        self._tags = tags
        self._served = served
        self._clock_s = clock_s
        self._last: _Attempt | None = None
        self._registry_fault = ""
        self._thread = ThreadPoolExecutor(1, "champion")
        self._changed = asyncio.Event()
        self._notified = threading.Event()
        self._leaving = False
        #: Id of the model being warmed up, and the share of its partitions that are warm.
        self.preparing: tuple[str, float] | None = None

    async def run(self, *, every_s: float) -> None:
        """Look until cancelled: after each `look_now`, and every `every_s`."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._changed.clear()
                await loop.run_in_executor(self._thread, self.look)
                with suppress(TimeoutError):
                    async with asyncio.timeout(every_s):  # wait_for may swallow a cancellation
                        await self._changed.wait()
        finally:
            self._leaving = True  # a warm-up breaks off; its errors are no fault of the model

    def look_now(self) -> None:
        """Look at the registry soon; called on the event loop."""
        self._notified.set()
        self._changed.set()

    @property
    def problem(self) -> str:
        """Why the registry's champion does not serve; empty while it does."""
        refused = self._last.fault if self._last is not None else ""
        return self._server.problem or refused or self._registry_fault

    def look(self) -> None:
        """Prepare the registry's champion unless it serves or is staged."""
        try:
            champion = self._registry.champion()
            self._registry_fault = ""
        except (ModelError, OSError) as error:
            fault = f"the registry names no champion: {error}"
            if fault != self._registry_fault:
                log.warning("registry_unreadable", reason=str(error))
            self._registry_fault = fault
            return
        server = self._server
        if champion is None or champion == server.staged_id:
            return
        if server.staged_id is not None:
            server.stage(None)  # superseded while it was staged
        last = self._last
        if champion == server.model_id:
            if last is not None and self._clock_s() > last.retry_at_s + _LAST_RETRY_S:
                self._last = None  # it has served without fault for a while
            return
        if last is not None and last.model_id == champion:
            if self._clock_s() < last.retry_at_s:
                return
            attempt = _Attempt(champion, 0.0, min(2 * last.wait_s, _LAST_RETRY_S), last.fault)
        else:
            attempt = _Attempt(champion, 0.0)
        self._last = attempt
        self._attempt(attempt)
        attempt.retry_at_s = self._clock_s() + attempt.wait_s

    def _attempt(self, attempt: _Attempt) -> None:
        try:
            self._server.stage(self._prepare(attempt))
            attempt.fault = ""
        except _Superseded:
            self._last = None
            log.info("champion_overtaken", model_id=attempt.model_id)
        except ServiceUnavailable as error:
            self._last = None  # no fault of the model; the store will answer again
            log.warning("champion_waits", model_id=attempt.model_id, reason=str(error))
        except (ModelError, SurgecastError, OSError, RuntimeError, MemoryError) as error:
            if self._leaving:
                return
            lines = str(error).strip().splitlines() or [type(error).__name__]
            fault = f"{attempt.model_id} is refused: {lines[0]}"
            if fault != attempt.fault:
                log.warning("champion_refused", model_id=attempt.model_id, reason=lines[0])
                SWAPS.labels("refused").inc()
                with suppress(OSError):
                    self._registry.refuse(attempt.model_id, note=f"by a worker: {lines[0]}")
            attempt.fault = fault
        finally:
            self.preparing = None

    def _prepare(self, attempt: _Attempt) -> Candidate:
        """A candidate with warm states and plausible first forecasts. Raises ChampionRefused."""
        model_id = attempt.model_id
        began_s = self._clock_s()
        self.preparing = (model_id, 0.0)
        self._notified.clear()
        server = self._server
        trained_through_ms = self._registry.trained_through_ms(model_id)
        if server.too_old(trained_through_ms):
            raise ChampionRefused("it is too old for the newest events (model.max_age)")
        known = server.previous_forecaster(model_id)
        device = self._settings.device
        if device == "auto" and attempt.wait_s > _FIRST_RETRY_S:
            device = "cpu"  # the GPU has failed it before
        fresh = known or self._registry.load(model_id, device)
        if fresh.bucket_ms != self._bucket_ms:
            raise ChampionRefused(
                f"its buckets are {fresh.bucket_ms} ms wide, the deployment's {self._bucket_ms} ms"
            )
        candidate = server.new_candidate(fresh, trained_through_ms)
        candidate.model.forecaster = fresh
        tags = self._tags()
        with _own_stream(fresh):
            for number, tag in enumerate(tags):
                self._warm(candidate, tag)
                self.preparing = (model_id, (number + 1) / len(tags))
        seconds = self._clock_s() - began_s
        WARM_UP.set(seconds)
        log.info("model_ready", model_id=model_id, partitions=len(tags), seconds=round(seconds, 1))
        return candidate

    def _warm(self, candidate: Candidate, tag: Tag) -> None:
        """Carry a partition's states to its newest closed bucket, and check the forecast there."""
        model, server = candidate.model, self._server
        pace = _Pace(0.0 if server.on_fallback else _REST)

        def between() -> None:
            pace.rest()
            if self._leaving:
                raise _Superseded
            if self._notified.is_set():
                self._notified.clear()
                if self._registry.champion() != model.model_id:
                    raise _Superseded

        def catch_up(*, anew: bool = False) -> ReadyToStep | None:
            return model.catch_up(
                tag, None, server.history,
                static=server.static, snapshots=server.snapshots, plans=server.plans,
                between=between, anew=anew,
            )  # fmt: skip

        for _ in range(_CATCH_UPS):
            ready = catch_up()
            if ready is None and tag in candidate.forecasts:
                return
            if ready is None:
                # no bucket has closed since these states forecast: warm them up again
                ready = catch_up(anew=True)
            if ready is None:
                return
            pace.rest()
            forecast = model.step(ready)
            pace.rest()
            served = self._served(tag)
            pace.rest()
            lead_ms = 0 if served is None else served.origin_ms - forecast.origin_ms
            comparable = abs(lead_ms) <= _COMPARABLE * self._bucket_ms
            fault = find_fault(
                forecast, served if comparable else None, may_be_less=server.on_fallback
            )
            if fault is not None:
                raise ChampionRefused(fault)
            candidate.forecasts[tag] = forecast
            if lead_ms <= 0:
                return


class _Pace:
    """Rests `share` times as long as the calling thread has worked since the last rest."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._since_s = time.monotonic()

    def rest(self) -> None:
        time.sleep(self._share * (time.monotonic() - self._since_s))
        self._since_s = time.monotonic()


class _Superseded(Exception):
    """Another model became champion during the warm-up, or the worker is stopping."""


@contextmanager
def _own_stream(forecaster: Forecaster) -> Iterator[None]:
    """A CUDA stream of its own, in parallel with the steps of the serving model."""
    if not isinstance(forecaster, NetworkForecaster) or forecaster.device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(forecaster.device)  # type: ignore[no-untyped-call]  # torch
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # another stream continues with the states; the whole device must not be waited for
        stream.synchronize()
