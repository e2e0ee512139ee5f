"""The statistics a worker publishes to the read side: counters, lag, latency, open sums."""

import time
from collections import Counter, deque
from typing import Any

import numpy as np
from faust.types import TP

from stream.ingest.idleness import Lag
from stream.ingest.pipeline import CONSUMERS, Pipeline
from stream.serving.champion_watch import ChampionWatch
from stream.serving.output_loop import OutputLoop

RATE_OVER_S = 3.0


class WorkerStatistics:
    """Collects the statistics of one worker; see docs/architecture.md for the document's fields."""

    def __init__(
        self,
        worker_id: str,
        pipeline: Pipeline,
        output: OutputLoop,
        champion: ChampionWatch,
        lag: Lag,
    ) -> None:
        self._worker_id = worker_id
        self._pipeline = pipeline
        self._output = output
        self._champion = champion
        self._lag = lag
        self._rate: deque[tuple[float, int]] = deque()

    def document(self, *, at_ms: int) -> dict[str, Any]:
        """The statistics as of now."""
        pipeline, output = self._pipeline, self._output
        events: dict[str, Counter[str]] = {}
        newest: list[int] = []
        for owned in pipeline.owner.owned.values():
            for (topic, verdict), count in owned.partition.state.counts.items():
                events.setdefault(topic, Counter())[verdict] += count
            marks = owned.partition.state.watermarks.values()
            newest += [mark.newest_ms for mark in marks if mark.newest_ms is not None]
        return {
            "worker": self._worker_id,
            "at_ms": at_ms,
            "partitions": sorted(pipeline.owner.owned),
            "events": events,
            "events_per_s": self._events_per_s(),
            "latency_ms": self._latency(),
            "watermark_ms": pipeline.watermark_ms,
            "newest_event_ms": max(newest, default=None),
            "buckets_closed": output.buckets_closed,
            "forecasts": output.forecasts,
            "model_id": output.server.model_id,
            "model_problem": self._champion.problem,
            "preparing": self._preparing(),
            "lag": self._total_lag(),
            "drained": self._drained(),
            "open_rollups": self._open_rollups(),
        }

    def _preparing(self) -> dict[str, Any] | None:
        preparing = self._champion.preparing
        if preparing is None:
            return None
        return {"model_id": preparing[0], "share": round(preparing[1], 2)}

    def _events_per_s(self) -> float:
        now = time.monotonic()
        self._rate.append((now, self._pipeline.events_in))
        while len(self._rate) > 1 and now - self._rate[0][0] > RATE_OVER_S:
            self._rate.popleft()
        (then, before), (_, after) = self._rate[0], self._rate[-1]
        return 0.0 if now == then else round((after - before) / (now - then), 1)

    def _latency(self) -> dict[str, float] | None:
        latencies = self._output.latencies_ms[-200:]
        if not latencies:
            return None
        p50, p99 = np.quantile(latencies, (0.5, 0.99))
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}

    def _total_lag(self) -> int | None:
        lags = [
            self._lag(TP(topic, number))
            for number in self._pipeline.owner.owned
            for topic in CONSUMERS
        ]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def _drained(self) -> bool:
        """True if all records read are stored, and all they closed is forecast and published."""
        pipeline = self._pipeline
        read = all(
            not owned.heartbeats
            and not any(owned.parked.values())
            and owned.stored == owned.partition.state.positions
            for owned in pipeline.owner.owned.values()
        )
        return read and self._output.idle and not pipeline.closes_due

    def _open_rollups(self) -> dict[str, dict[str, list[int]]]:
        sums: dict[str, dict[str, list[int]]] = {}
        for owned in self._pipeline.owner.owned.values():
            state = owned.partition.state
            for start, bucket in sorted(state.open.items())[-2:]:
                total = sums.setdefault(str(start), {})
                for name, row in state.series.rollups(bucket.sums_SF).items():
                    known = total.get(name)
                    total[name] = (
                        row if known is None else [a + b for a, b in zip(known, row, strict=True)]
                    )
        return sums
