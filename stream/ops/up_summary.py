"""Progress and result of a run, from the counters that the workers store."""

from dataclasses import asdict, dataclass
from typing import Any

from stream.errors import ServiceUnavailable
from stream.processes.progress_lines import Step
from stream.readside.reader import Reader, connect
from stream.readside.worker_stats import DeploymentStats
from stream.settings import Settings

#: Consecutive reports without lag before a run counts as drained: one may fall between two fetches.
_QUIET_REPORTS = 2


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of a replay. Events in = counted + duplicate + dead-lettered."""

    events_in: int
    counted: int
    duplicate: int
    dead_lettered: int
    late: int
    rejected: int
    buckets_closed: int
    forecasts: int
    series: int
    seconds: float
    events_per_s: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    model_ids: tuple[str, ...]
    watermark_ms: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


class Watcher:
    """Reads the workers' counters. Ignores a lost store, which the supervisor detects."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings.redis)
        self._reader = Reader(self._redis)
        self._stats = DeploymentStats()
        self._quiet = 0
        self._seen_ms: int | None = None

    def refresh(self) -> DeploymentStats:
        """Return the newest counters; the previous ones if the store does not answer."""
        try:
            self._reader.refresh()
        except ServiceUnavailable:
            return self._stats
        stats = self._reader.stats()
        if stats.workers:
            self._stats = stats
        return self._stats

    def drained(self, replayed: Step) -> bool:
        """True if a whole replay is counted, closed, forecast and published.

        Uses the counters of the last `refresh` and the store; `replayed.facts["end_ms"]` is the
        time of the replay's last heartbeat, up to which every bucket closes.
        """
        stats = self._stats
        end_ms = replayed.facts.get("end_ms")
        behind = stats.watermark_ms is None or (end_ms is not None and stats.watermark_ms < end_ms)
        if behind or stats.lag != 0 or not stats.drained or not self._forecast_through(end_ms):
            self._quiet = 0
        elif stats.at_ms != self._seen_ms:
            self._quiet += 1
        self._seen_ms = stats.at_ms
        return self._quiet >= _QUIET_REPORTS

    def _forecast_through(self, end_ms: int | None) -> bool:
        """True if every partition and the roll-ups have closed and forecast up to `end_ms`.

        Checks one series per partition, since a partition closes and forecasts all of its series
        together.
        """
        info = self._reader.info()
        if end_ms is None or info is None:
            return True
        through_ms = end_ms // info.bucket_ms * info.bucket_ms
        one_per_tag = {tag: series_id for series_id, tag, _ in self._reader.series()}
        try:
            live = self._reader.live(one_per_tag.values())
        except ServiceUnavailable:
            return False
        return all(
            forecast is not None and forecast.origin_ms >= through_ms
            for _, forecast in live.values()
        )

    def summary(self, *, seconds: float) -> Summary:
        """Summarize the counters of the last `refresh`; `seconds` since the replay began."""
        stats = self._stats
        counted, duplicate = stats.total("counted"), stats.total("duplicate")
        late, rejected = stats.total("late"), stats.total("rejected")
        events = counted + duplicate + late + rejected
        return Summary(
            events_in=events,
            counted=counted,
            duplicate=duplicate,
            dead_lettered=late + rejected,
            late=late,
            rejected=rejected,
            buckets_closed=stats.buckets_closed,
            forecasts=stats.forecasts,
            series=len(self._reader.series()),
            seconds=round(seconds, 3),
            events_per_s=round(events / seconds, 1) if seconds else 0.0,
            latency_p50_ms=stats.latency_p50_ms,
            latency_p99_ms=stats.latency_p99_ms,
            model_ids=stats.model_ids,
            watermark_ms=stats.watermark_ms,
        )
