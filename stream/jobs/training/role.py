"""The process of `surgecast trainer`: connects the `Trainer` to settings, store and broker.

Runs at low priority on `trainer.threads` threads, so that it does not slow down workers on the same
machine.
"""

import os
import time
from contextlib import suppress
from typing import Final

import redis
import structlog
import torch

from stream.clock import wall_clock_ms
from stream.errors import ServiceUnavailable
from stream.jobs.training.handover import hand_over_states
from stream.jobs.training.stored_history import stored_history
from stream.jobs.training.trainer import Trainer, TrainingResult
from stream.processes.signals import stop_signals
from stream.registry.announcements import ModelRecord, RetrainRequests, announce
from stream.registry.model_registry import Registry
from stream.settings import Settings
from stream.state.connect import redis_options

log = structlog.get_logger(__name__)

#: Lowest priority: workers on the same machine go first.
NICENESS: Final = 19


def run(settings: Settings, *, once: bool) -> TrainingResult | None:
    """Train when due until SIGTERM or SIGINT; with `once`, train one challenger and return it."""
    with suppress(OSError):
        os.nice(max(0, NICENESS - os.nice(0)))
    torch.set_num_threads(settings.trainer.threads)
    url, options = redis_options(settings)
    client = redis.Redis.from_url(url, **options)

    has_broker = settings.kafka.bootstrap_servers is not None

    def announce_if_broker(record: ModelRecord) -> None:
        if has_broker:
            announce(settings, record)

    trainer = Trainer(
        settings,
        Registry(settings.registry_path),
        history=lambda: stored_history(
            client,
            largest=settings.trainer.series,
            max_span_ms=settings.trainer.max_span,
            archive=settings.trainer.archive,
        ),
        hand_over_states=lambda model: hand_over_states(
            client, settings.states_path, model, archive=settings.trainer.archive
        ),
        announce=announce_if_broker,
        now_ms=wall_clock_ms,
    )
    if once:
        return trainer.once("by hand")
    requests = RetrainRequests(settings) if has_broker else None

    def newest(wait_ms: int) -> ModelRecord | None:
        if requests is not None:
            try:
                return requests.newest(wait_ms=wait_ms)
            except ServiceUnavailable as error:
                log.debug("requests_wait", reason=str(error))
        time.sleep(wait_ms / 1000)  # `requests.newest` would have waited as long
        return None

    try:
        with stop_signals():
            trainer.run(newest)
    except KeyboardInterrupt:
        return None
    finally:
        if requests is not None:
            requests.close()
    return None
