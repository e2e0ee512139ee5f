"""Counters that only rise: read from the store, whatever workers run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stream.readside.worker_stats import DeploymentStats

_COUNT = b"count:"


@dataclass(frozen=True, slots=True)
class Counters:
    """Events by topic and verdict, buckets closed and forecasts written since the store began."""

    events: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    buckets_closed: int = 0
    forecasts: int = 0

    @classmethod
    def read(
        cls,
        metas: Iterable[Mapping[bytes, bytes]],
        totals: Mapping[bytes, bytes],
        stats: DeploymentStats,
    ) -> "Counters":
        """Return the counters of the partitions' `meta`; what it lacks, as the workers report.

        >>> metas = [{b"count:orders:late": b"2"}, {b"count:orders:late": b"3", b"fence": b"1"}]
        >>> Counters.read(metas, {b"forecasts": b"7"}, DeploymentStats())
        Counters(events={'orders': {'late': 5}}, buckets_closed=0, forecasts=7)
        """
        events: dict[str, dict[str, int]] = {}
        for meta in metas:
            for name, count in meta.items():
                if name.startswith(_COUNT):
                    _, topic, verdict = name.decode().split(":")
                    of_topic = events.setdefault(topic, {})
                    of_topic[verdict] = of_topic.get(verdict, 0) + int(count)
        return cls(
            events or stats.events,
            int(totals.get(b"buckets_closed", stats.buckets_closed)),
            int(totals.get(b"forecasts", stats.forecasts)),
        )
