"""Totals of the counters and gauges that the workers report to the store twice a second."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DeploymentStats:
    """Totals over all workers that report; empty if none does.

    Latencies are of the slowest worker, the watermark is of the one furthest behind. `lag` is None
    while one of them does not know it, `broker_ms` when the broker last answered all of them.
    `as_of_ms` is up to when a partition is complete; of `refusing` topics everything is refused.
    """

    workers: tuple[str, ...] = ()
    at_ms: int | None = None
    reported_ms: Mapping[int, int] = field(default_factory=dict)
    events: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events_per_s: float = 0.0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    watermark_ms: int | None = None
    newest_event_ms: int | None = None
    buckets_closed: int = 0
    forecasts: int = 0
    model_ids: tuple[str, ...] = ()
    model_problems: tuple[str, ...] = ()
    preparing: Mapping[str, float] = field(default_factory=dict)
    lag: int | None = None
    as_of_ms: Mapping[int, int] = field(default_factory=dict)
    broker_ms: int | None = None
    refusing: tuple[str, ...] = ()
    drained: bool = False
    open_rollups: Mapping[int, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)

    def total(self, verdict: str) -> int:
        """Events of all topics with a verdict: counted, duplicate, late or rejected."""
        return sum(counts.get(verdict, 0) for counts in self.events.values())


def merge_stats(reports: Iterable[Mapping[str, Any]]) -> DeploymentStats:
    """Total the workers' reports.

    >>> one = {"worker": "a", "at_ms": 5, "partitions": [0], "watermark_ms": 90, "events_per_s": 2,
    ...        "events": {"orders": {"counted": 3}}, "latency_ms": {"p50": 4, "p99": 9}}
    >>> two = one | {"worker": "b", "partitions": [1], "watermark_ms": 70}
    >>> both = merge_stats([one, two])
    >>> both.watermark_ms, both.total("counted"), both.latency_p99_ms, both.workers
    (70, 6, 9.0, ('a', 'b'))
    """
    reports = list(reports)
    if not reports:
        return DeploymentStats()
    events: dict[str, dict[str, int]] = {}
    reported_ms: dict[int, int] = {}
    rollups: dict[int, dict[str, NDArray[np.int64]]] = {}
    for report in reports:
        for topic, counts in (report.get("events") or {}).items():
            totals = events.setdefault(topic, {})
            for verdict, count in counts.items():
                totals[verdict] = totals.get(verdict, 0) + int(count)
        for partition in report.get("partitions") or ():
            at_ms = max(reported_ms.get(int(partition), 0), int(report["at_ms"]))
            reported_ms[int(partition)] = at_ms
        for start, sums in (report.get("open_rollups") or {}).items():
            by_name = rollups.setdefault(int(start), {})
            for name, row in sums.items():
                row_F = np.asarray(row, np.int64)
                by_name[name] = by_name[name] + row_F if name in by_name else row_F
    return DeploymentStats(
        workers=tuple(sorted(str(report["worker"]) for report in reports)),
        at_ms=max(int(report["at_ms"]) for report in reports),
        reported_ms=reported_ms,
        events=events,
        events_per_s=sum(float(report.get("events_per_s") or 0) for report in reports),
        latency_p50_ms=_worst(reports, "p50"),
        latency_p99_ms=_worst(reports, "p99"),
        watermark_ms=min(_known(reports, "watermark_ms"), default=None),
        newest_event_ms=max(_known(reports, "newest_event_ms"), default=None),
        buckets_closed=sum(_known(reports, "buckets_closed")),
        forecasts=sum(_known(reports, "forecasts")),
        model_ids=tuple(sorted({str(r["model_id"]) for r in reports if r.get("model_id")})),
        model_problems=tuple(
            sorted({str(r["model_problem"]) for r in reports if r.get("model_problem")})
        ),
        preparing=_preparing(reports),
        lag=sum(lags) if len(lags := _known(reports, "lag")) == len(reports) else None,
        as_of_ms=_as_of_ms(reports),
        broker_ms=min(_known(reports, "broker_ms"), default=None),
        refusing=tuple(sorted({str(t) for r in reports for t in r.get("refusing") or ()})),
        drained=all(report.get("drained", False) for report in reports),
        open_rollups=rollups,
    )


def _as_of_ms(reports: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Up to when each partition is complete; of a worker that cannot say, when it reported."""
    times: dict[int, int] = {}
    for report in reports:
        known = report.get("as_of_ms")
        if known is None:
            known = dict.fromkeys(report.get("partitions") or (), report["at_ms"])
        for partition, at_ms in known.items():
            times[int(partition)] = max(times.get(int(partition), 0), int(at_ms))
    return times


def _preparing(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Models in warm-up, each with the share done by the slowest worker."""
    shares: dict[str, float] = {}
    for report in reports:
        if report.get("preparing"):
            model_id, share = str(report["preparing"]["model_id"]), report["preparing"]["share"]
            shares[model_id] = min(shares.get(model_id, 1.0), float(share))
    return shares


def _known(reports: Sequence[Mapping[str, Any]], name: str) -> list[int]:
    return [int(report[name]) for report in reports if report.get(name) is not None]


def _worst(reports: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [(report.get("latency_ms") or {}).get(name) for report in reports]
    return max((float(value) for value in values if value is not None), default=None)
