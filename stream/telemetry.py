"""Logs and counters. Logs are structured; people's ids never go in, see `stream.privacy`.

On a terminal the log is for reading, elsewhere it is one JSON object a line. It goes to stderr, so
that stdout belongs to what a command answers. The counters are Prometheus'; a worker serves them
where `worker.metrics_port` says, the HTTP API under `/metrics`.
"""

import logging
import sys
from typing import Final, Literal, TextIO

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

Level = Literal["debug", "info", "warning", "error"]

#: Libraries that say too much: what matters of it reaches the operator as our own errors.
_QUIET: Final = {
    "aiokafka": logging.WARNING,
    "faust": logging.WARNING,
    "kafka": logging.ERROR,
    "mode": logging.WARNING,
    "asyncio": logging.WARNING,
    "matplotlib": logging.WARNING,
    "bokeh": logging.WARNING,
    "tornado.access": logging.ERROR,
    "uvicorn.access": logging.WARNING,
}

EVENTS: Final = Counter(
    "surgecast_events",
    "Events by topic and verdict: counted, duplicate, late, rejected.",
    ["topic", "verdict"],
)
ROUTED: Final = Counter(
    "surgecast_routed", "What a router has read and sent: documents, lines, refused.", ["what"]
)
BUCKETS_CLOSED: Final = Counter(
    "surgecast_buckets_closed", "Buckets closed, per partition.", ["partition"]
)
FORECASTS: Final = Counter(
    "surgecast_forecasts", "Forecasts written, by what caused them.", ["reason"]
)
FLUSHES: Final = Histogram(
    "surgecast_flush_seconds",
    "One transaction of a partition into the store.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
LATENCY: Final = Histogram(
    "surgecast_event_to_forecast_seconds",
    "From a record's broker timestamp to its forecast being readable.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
SCORED: Final = Counter(
    "surgecast_scored",
    "Sums over scored forecasts by sum, volume class, step and model.",
    ["sum", "volume", "step", "model_id"],
)
WATERMARK: Final = Gauge(
    "surgecast_watermark_seconds", "Event-time watermark, Unix seconds.", ["partition"]
)
SWAPS: Final = Counter(
    "surgecast_model_swaps",
    "Models that took over in this worker, or did not: swapped, refused, reverted, fallback.",
    ["outcome"],
)
WARM_UP: Final = Gauge(
    "surgecast_model_warm_up_seconds", "How long the newest model took to get ready aside."
)
TRAINED: Final = Gauge(
    "surgecast_trainer_last_training_timestamp_seconds", "When the last training ended, Unix time."
)
TRAINING: Final = Gauge(
    "surgecast_trainer_last_training_seconds", "How long the last training took."
)
VERDICTS: Final = Gauge(
    "surgecast_trainer_last_verdict",
    "1 for what became of the last training: promoted, refused, failed, skipped; else 0.",
    ["verdict"],
)
LAG: Final = Gauge("surgecast_lag_records", "Records not read yet.", ["topic", "partition"])


def configure_logging(
    level: Level = "info", *, stream: TextIO | None = None, pretty: bool | None = None
) -> None:
    """Send structlog's and the standard library's records to `stream` (stderr) at `level`.

    `pretty` is for people, otherwise one JSON object a line; by default a terminal gets pretty.
    """
    out = stream if stream is not None else sys.stderr
    readable = out.isatty() if pretty is None else pretty
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=True,
    )


def serve_metrics(host: str, port: int) -> int:
    """Serve `/metrics` from a thread; return the port. Raises OSError when it cannot listen."""
    server, _ = start_http_server(port, addr=host)
    return int(server.server_port)
