"""The Faust app: our batch transport, our offsets, no tables, no topics of its own.

Faust hosts the agents and takes part in the consumer group; event time, state and offsets are ours.
"""

import asyncio
import logging
import os
import threading
from pathlib import Path
from typing import Any, Final

import faust
import structlog
from faust.types.transports import TransportT

from stream.errors import SurgecastError
from stream.kafka.clients import _ssl_context, broker_address
from stream.kafka.consumer_thread import OffsetAuthority
from stream.kafka.faust_transport import BatchTransport
from stream.processes.stack_report import task_stacks, thread_stacks
from stream.settings import Settings

log = structlog.get_logger(__name__)

#: The longest a worker takes to stop; orchestrators kill after half a minute.
STOP_S: Final = 25.0

#: Where Faust's services log what they crash of: its own modules, and those of our services.
_SERVICE_LOGS = (
    *("faust", "mode", "stream.kafka.faust_app", "stream.kafka.consumer_thread"),
    *("stream.kafka.faust_transport", "stream.worker.service"),
)


class SurgecastApp(faust.App):
    """A Faust app whose offsets belong to `offset_authority`, set before it starts."""

    offset_authority: OffsetAuthority
    #: Why the worker stops, where that can be said in a line.
    fatal: SurgecastError | None = None

    async def stop(self) -> None:
        """Stop, in time: clients of a broker that is away wait for it for minutes.

        What has not been stored by then is read again, as after a crash.
        """
        backstop = threading.Timer(STOP_S, _end, args=(asyncio.get_running_loop(),))
        backstop.daemon = True
        backstop.start()
        try:
            await super().stop()
        finally:
            backstop.cancel()

    async def give_up(self, error: SurgecastError) -> None:
        """Stop the worker for a reason that it can explain."""
        self.explain(error)
        await self.crash(error)

    def explain(self, error: SurgecastError) -> None:
        """Say why the worker is about to stop; nobody needs the traceback."""
        if self.fatal is None:
            self.fatal = error
        for name in _SERVICE_LOGS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def _new_transport(self) -> TransportT:
        return BatchTransport(self.conf.broker_consumer, self)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    try:
        log.warning(
            "stop_forced",
            reason=f"not stopped within {STOP_S:.0f} s; broker or store may be away",
            tasks=task_stacks(loop),
            threads=thread_stacks(),
        )
    finally:  # whatever becomes of the words
        os._exit(1)


def create_app(settings: Settings, *, data_dir: Path) -> SurgecastApp:
    """The worker's app; agents are attached by `stream.ingest.agents.attach`."""
    kafka = settings.kafka
    servers = broker_address(settings).split(",")
    session_s = kafka.session_timeout / 1000
    return SurgecastApp(
        kafka.group,
        broker=[f"aiokafka://{server.strip()}" for server in servers],
        broker_credentials=_credentials(settings),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 4,
        broker_rebalance_timeout=max(60.0, session_s),
        broker_request_timeout=max(90.0, session_s),
        broker_commit_interval=1.0,
        broker_max_poll_records=None,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=1_048_576,
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=str(data_dir),
        store="memory://",
    )


def _credentials(settings: Settings) -> Any:
    kafka = settings.kafka
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = _ssl_context(settings) if kafka.security_protocol.endswith("SSL") else None
    if kafka.security_protocol == "SSL":
        return faust.SSLCredentials(context=context)
    return faust.SASLCredentials(
        username=kafka.username,
        password=kafka.password.get_secret_value() if kafka.password else "",
        mechanism=kafka.sasl_mechanism,
        ssl_context=context,
    )
