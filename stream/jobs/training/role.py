"""The trainer as a role: its settings, store, registry and control topic brought together.

Runs at low priority and on `trainer.threads` threads, so that workers on the same machine do not
notice; a GPU is left to them.
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
from stream.jobs.training.handover import hand_over
from stream.jobs.training.stored_history import stored_history
from stream.jobs.training.trainer import Trainer, TrainingResult
from stream.processes.signals import stop_signals
from stream.registry.announcements import ModelRecord, RetrainRequests, announce
from stream.registry.model_registry import Registry
from stream.settings import Settings
from stream.state.connect import redis_options

log = structlog.get_logger(__name__)

#: A worker on the same machine comes first.
NICENESS: Final = 19


def run(settings: Settings, *, once: bool) -> TrainingResult | None:
    """Train when due until told to stop (SIGTERM, SIGINT); with `once`, one challenger. Blocks."""
    with suppress(OSError):
        os.nice(max(0, NICENESS - os.nice(0)))
    torch.set_num_threads(settings.trainer.threads)
    url, options = redis_options(settings)
    client = redis.Redis.from_url(url, **options)
    wanted = settings.trainer
    broker = settings.kafka.bootstrap_servers is not None

    def tell(record: ModelRecord) -> None:
        if broker:
            announce(settings, record)

    trainer = Trainer(
        settings,
        Registry(settings.registry_path),
        history=lambda: stored_history(
            client,
            largest=wanted.series,
            max_span_ms=wanted.max_span,
            archive=wanted.archive,
        ),
        hand_over=lambda model: hand_over(client, settings.states_path, model),
        announce=tell,
        now_ms=wall_clock_ms,
    )
    if once:
        return trainer.once("by hand")
    requests = RetrainRequests(settings) if broker else None

    def newest(wait_ms: int) -> ModelRecord | None:
        if requests is not None:
            try:
                return requests.newest(wait_ms=wait_ms)
            except ServiceUnavailable as error:
                log.debug("requests_wait", reason=str(error))
        time.sleep(wait_ms / 1000)  # in the place of the wait for a request
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
