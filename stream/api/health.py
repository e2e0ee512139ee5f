"""`/healthz`, `/readyz` and `/metrics`: endpoints for operators.

The metrics are totals over all workers, read from the store. To scrape each worker separately, set
`worker.metrics_port`.
"""

from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from model.evaluation.score_sums import score_of
from stream.api.problems import Problem
from stream.api.shared_reader import SharedReader
from stream.readside.counters import Counters
from stream.readside.live_accuracy import LiveAccuracy
from stream.readside.worker_stats import DeploymentStats

_ACCURACY_DAYS: Final = 7

open_router = APIRouter(tags=["operations"])
router = APIRouter(tags=["operations"])


@open_router.get("/healthz")
def healthz() -> dict[str, str]:
    """Check that this process runs."""
    return {"status": "ok"}


@open_router.get("/readyz")
def readyz(request: Request) -> dict[str, str | int]:
    """Check that answers are those of now.

    503 while the store or the broker does not answer, a worker does not report, an input is behind
    or everything is refused; `type` says which.
    """
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        stats, fault = reader.stats(), reader.fault()
    if fault is not None:
        raise Problem(503, fault.kind, fault.detail, {"Retry-After": "5"})
    return {"status": "ready", "workers": len(stats.workers)}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Get counters and gauges of all workers in the Prometheus text format."""
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        stats, n_series, counters = reader.stats(), reader.n_series, reader.counters()
        accuracy = reader.accuracy(_ACCURACY_DAYS)
    registry = CollectorRegistry()
    n_listeners = len(request.app.state.listeners)
    registry.register(_WorkerMetrics(stats, counters, n_series, n_listeners))
    registry.register(_AccuracyMetrics(accuracy))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _AccuracyMetrics:
    """Accuracy of the last days by model and volume class."""

    def __init__(self, accuracy: LiveAccuracy) -> None:
        self._accuracy = accuracy

    def collect(self) -> Iterator[Metric]:
        labels = ["model_id", "volume"]
        families = {
            "wql": GaugeMetricFamily(
                "surgecast_wql", "WQL of the published forecasts.", labels=labels
            ),
            "naive_wql": GaugeMetricFamily(
                "surgecast_naive_wql",
                "WQL of the seasonal naive, last week's units.",
                labels=labels,
            ),
            "bias": GaugeMetricFamily(
                "surgecast_bias",
                "Median minus actual units, as a share of actual units.",
                labels=labels,
            ),
            "coverage": GaugeMetricFamily(
                "surgecast_coverage", "Share of demand inside the main band.", labels=labels
            ),
        }
        for model_id, volume, sums_HK in self._accuracy.models():
            score = score_of(sums_HK)
            for name, family in families.items():
                value = getattr(score, name)
                if value is not None:
                    family.add_metric([model_id, volume], value)
        yield from families.values()


class _WorkerMetrics:
    """Totals over the workers at one point in time."""

    def __init__(
        self, stats: DeploymentStats, counters: Counters, n_series: int, n_listeners: int
    ) -> None:
        self._stats = stats
        self._counters = counters
        self._gauges: dict[str, tuple[str, float | None]] = {
            "surgecast_workers": ("Workers that are reporting.", len(stats.workers)),
            "surgecast_series": ("Series, including roll-ups.", n_series),
            "surgecast_events_per_second": ("Events read per second.", stats.events_per_s),
            "surgecast_lag_records": ("Records waiting to be read.", stats.lag),
            "surgecast_watermark_seconds": (
                "Event-time watermark of the partition furthest behind, Unix seconds.",
                None if stats.watermark_ms is None else stats.watermark_ms / 1_000,
            ),
            "surgecast_http_listeners": ("Open /v1/stream connections.", n_listeners),
        }

    def collect(self) -> Iterator[Metric]:
        stats, counters = self._stats, self._counters
        events = CounterMetricFamily(
            "surgecast_events", "Events by topic and verdict.", labels=["topic", "verdict"]
        )
        for topic, counts in counters.events.items():
            for verdict, count in counts.items():
                events.add_metric([topic, verdict], count)
        yield events
        yield CounterMetricFamily(
            "surgecast_buckets_closed", "Buckets closed.", value=counters.buckets_closed
        )
        yield CounterMetricFamily(
            "surgecast_forecasts", "Forecasts written.", value=counters.forecasts
        )
        latency = GaugeMetricFamily(
            "surgecast_event_to_forecast_latency_seconds",
            "Time from a record's broker timestamp to its readable forecast, slowest worker.",
            labels=["quantile"],
        )
        for quantile, value_ms in (("0.5", stats.latency_p50_ms), ("0.99", stats.latency_p99_ms)):
            if value_ms is not None:
                latency.add_metric([quantile], value_ms / 1_000)
        yield latency
        for name, (description, value) in self._gauges.items():
            if value is not None:
                yield GaugeMetricFamily(name, description, value=value)
