"""The Faust app of a worker: batch transport, offsets from the store, no tables.

Faust hosts the agents and joins the consumer group; event time, state and offsets are ours.
"""

import asyncio
import logging
import os
import threading
from pathlib import Path
from typing import Final

import faust
import mode
import structlog
from faust.types.transports import TransportT

from stream.errors import SurgecastError
from stream.kafka.clients import METADATA_MS, faust_config
from stream.kafka.reading import consumer_thread, faust_transport
from stream.kafka.reading.consumer_thread import OffsetAuthority
from stream.kafka.reading.faust_transport import BatchTransport
from stream.processes.stack_report import task_stacks, thread_stacks
from stream.settings import Settings

log = structlog.get_logger(__name__)

#: Longest time a worker takes to stop; orchestrators kill after half a minute.
STOP_S: Final = 25.0

#: Loggers to which Faust and its services write the traceback of a crash.
SERVICE_LOGS: Final = (
    faust.__name__, mode.__name__, __name__, consumer_thread.__name__, faust_transport.__name__
)  # fmt: skip


class SurgecastApp(faust.App):
    """A Faust app whose offsets belong to `offset_authority`, set before it starts.

    `service_logs` adds the loggers of further services to `SERVICE_LOGS`.
    """

    offset_authority: OffsetAuthority
    service_logs: tuple[str, ...] = ()
    #: The error that stops the worker, if it is one of ours.
    fatal: SurgecastError | None = None

    async def stop(self) -> None:
        """Stop within `STOP_S`, since clients of an unreachable broker wait for minutes.

        Records not stored by then are read again, as after a crash.
        """
        backstop = threading.Timer(STOP_S, _force_exit, args=(asyncio.get_running_loop(),))
        backstop.daemon = True
        backstop.start()
        try:
            await super().stop()
        finally:
            backstop.cancel()

    async def give_up(self, error: SurgecastError) -> None:
        """Stop the worker with an error that names its own cause."""
        self.set_fatal(error)
        await self.crash(error)

    def set_fatal(self, error: SurgecastError) -> None:
        """Keep the first error as the reason of the stop, and log no tracebacks from now on."""
        if self.fatal is None:
            self.fatal = error
        for name in (*SERVICE_LOGS, *self.service_logs):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def _new_transport(self) -> TransportT:
        return BatchTransport(self.conf.broker_consumer, self)


def _force_exit(loop: asyncio.AbstractEventLoop) -> None:
    try:
        log.warning(
            "stop_forced",
            reason=f"not stopped within {STOP_S:.0f} s; broker or store may be away",
            tasks=task_stacks(loop),
            threads=thread_stacks(),
        )
    finally:  # even if the report fails
        os._exit(1)


def create_app(settings: Settings, *, data_dir: Path) -> SurgecastApp:
    """Create a worker's app, without agents. Raises UsageError when no broker is named."""
    kafka = settings.kafka
    session_s = kafka.session_timeout / 1000
    return SurgecastApp(
        kafka.group,
        **faust_config(settings),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 4,
        broker_rebalance_timeout=max(60.0, session_s),
        broker_request_timeout=max(90.0, session_s),
        broker_commit_interval=1.0,
        broker_max_poll_records=None,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=1_048_576,
        consumer_metadata_max_age_ms=METADATA_MS,
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=str(data_dir),
        store="memory://",
    )
