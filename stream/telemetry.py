"""Structured logs of every role, and the Prometheus metrics of worker, trainer and router.

The families of the API's `/metrics` are in `stream/api/health.py`.

A terminal gets readable logs, any other stream one JSON object per line. Logs go to stderr, so that
stdout carries only a command's output. They never contain people's ids (`stream.privacy`).
"""

import logging
import sys
from typing import Final, Literal, TextIO

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

Level = Literal["debug", "info", "warning", "error"]

#: Least level of noisy libraries; their relevant failures reach the operator as our own errors.
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
DATA_AGE: Final = Gauge(
    "surgecast_data_age_seconds",
    "Time since all that the broker has of this worker's partitions was last known to be stored.",
)
ROUTED: Final = Counter(
    "surgecast_routed", "Router input and output by kind: documents, lines, refused.", ["what"]
)
LATENCY: Final = Histogram(
    "surgecast_event_to_forecast_seconds",
    "From a record's broker timestamp until its forecast can be read.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
SCORED: Final = Counter(
    "surgecast_scored",
    "Sums over scored forecasts, by kind of sum, volume class, step and model.",
    ["sum", "volume", "step", "model_id"],
)
SWAPS: Final = Counter(
    "surgecast_model_swaps",
    "Model changes of this worker by outcome: swapped, refused, reverted, fallback.",
    ["outcome"],
)
WARM_UP: Final = Gauge("surgecast_model_warm_up_seconds", "Duration of the newest model's warm-up.")
TRAINED: Final = Gauge(
    "surgecast_trainer_last_training_timestamp_seconds", "End of the last training, Unix seconds."
)
TRAINING: Final = Gauge("surgecast_trainer_last_training_seconds", "Duration of the last training.")
VERDICTS: Final = Gauge(
    "surgecast_trainer_last_verdict",
    "1 for the outcome of the last training: promoted, refused, failed or skipped; else 0.",
    ["verdict"],
)


def configure_logging(
    level: Level = "info", *, stream: TextIO | None = None, pretty: bool | None = None
) -> None:
    """Send the log records of structlog and logging to `stream` (default stderr), from `level` on.

    `pretty` makes lines readable instead of one JSON object each; by default on a terminal only.
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
    for name, least_level in _QUIET.items():
        logging.getLogger(name).setLevel(max(least_level, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=True,
    )


def serve_metrics(host: str, port: int) -> int:
    """Serve `/metrics` from a thread; return the port. Raises OSError if the port is not free."""
    server, _ = start_http_server(port, addr=host)
    return int(server.server_port)
