"""`/healthz`, `/readyz` and `/metrics`: for those who run the product.

The counters are the workers', read from the store and added up, so they are there wherever the
workers run. To scrape each worker by itself, set `worker.metrics_port`.
"""

from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from model.evaluation.score_sums import score_of
from stream.api.problems import Problem
from stream.api.shared_reader import SharedReader
from stream.clock import wall_clock_ms
from stream.readside.live_accuracy import LiveAccuracy
from stream.readside.series_answers import STALE_AFTER_MS
from stream.readside.worker_stats import DeploymentStats

_ACCURACY_DAYS: Final = 7

open_router = APIRouter(tags=["operations"])
router = APIRouter(tags=["operations"])


@open_router.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that this process runs."""
    return {"status": "ok"}


@open_router.get("/readyz")
def readyz(request: Request) -> dict[str, str | int]:
    """Say whether answers are fresh: the store answers and a worker reports."""
    gate: SharedReader = request.app.state.gate
    with gate.reading() as reader:
        stats = reader.stats()
    if stats.at_ms is None or wall_clock_ms() - stats.at_ms > STALE_AFTER_MS:
        raise Problem(503, "no-worker", "no worker reports; start one with: surgecast worker")
    return {"status": "ready", "workers": len(stats.workers)}


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Counters and gauges of all workers, as Prometheus reads them."""
    gate: SharedReader = request.app.state.gate
    with gate.reading() as reader:
        stats, n_series = reader.stats(), reader.n_series
        accuracy = reader.accuracy(_ACCURACY_DAYS)
    registry = CollectorRegistry()
    registry.register(_Families(stats, n_series, len(request.app.state.listeners)))
    registry.register(_AccuracyFamilies(accuracy))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _AccuracyFamilies:
    """What forecasts were worth over the last days, by model and volume class."""

    def __init__(self, accuracy: LiveAccuracy) -> None:
        self._accuracy = accuracy

    def collect(self) -> Iterator[Metric]:
        labels = ["model_id", "volume"]
        families = {
            "wql": GaugeMetricFamily("surgecast_wql", "WQL of what was sent.", labels=labels),
            "naive_wql": GaugeMetricFamily(
                "surgecast_naive_wql", "WQL of last week's units.", labels=labels
            ),
            "bias": GaugeMetricFamily("surgecast_bias", "Median too high by.", labels=labels),
            "coverage": GaugeMetricFamily(
                "surgecast_coverage", "Share of demand in the outermost band.", labels=labels
            ),
        }
        for model_id, volume, sums_HK in self._accuracy.models():
            score = score_of(sums_HK)
            for name, family in families.items():
                value = getattr(score, name)
                if value is not None:
                    family.add_metric([model_id, volume], value)
        yield from families.values()


class _Families:
    """The metrics of one moment."""

    def __init__(self, stats: DeploymentStats, n_series: int, n_listeners: int) -> None:
        self._stats = stats
        self._gauges: dict[str, tuple[str, float | None]] = {
            "surgecast_workers": ("Workers that report.", len(stats.workers)),
            "surgecast_series": ("Series, roll-ups included.", n_series),
            "surgecast_events_per_second": ("Events read a second.", stats.events_per_s),
            "surgecast_lag_records": ("Records not read yet.", stats.lag),
            "surgecast_watermark_seconds": (
                "Event-time watermark of the partition furthest behind, Unix seconds.",
                None if stats.watermark_ms is None else stats.watermark_ms / 1_000,
            ),
            "surgecast_http_listeners": ("Open /v1/stream connections.", n_listeners),
        }

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        events = CounterMetricFamily(
            "surgecast_events", "Events by topic and verdict.", labels=["topic", "verdict"]
        )
        for topic, counts in stats.events.items():
            for verdict, count in counts.items():
                events.add_metric([topic, verdict], count)
        yield events
        yield CounterMetricFamily(
            "surgecast_buckets_closed", "Buckets closed.", value=stats.buckets_closed
        )
        yield CounterMetricFamily(
            "surgecast_forecasts", "Forecasts written.", value=stats.forecasts
        )
        latency = GaugeMetricFamily(
            "surgecast_event_to_forecast_latency_seconds",
            "From a record's broker timestamp to its forecast being readable, slowest worker.",
            labels=["quantile"],
        )
        for quantile, value_ms in (("0.5", stats.latency_p50_ms), ("0.99", stats.latency_p99_ms)):
            if value_ms is not None:
                latency.add_metric([quantile], value_ms / 1_000)
        yield latency
        for name, (meaning, value) in self._gauges.items():
            if value is not None:
                yield GaugeMetricFamily(name, meaning, value=value)
