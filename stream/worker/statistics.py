"""The statistics a worker publishes to the read side: counters, lag, latency, open sums."""

import math
import time
from collections import Counter, deque
from typing import Any

import numpy as np
from faust.types import TP

from stream.clock import wall_clock_ms
from stream.ingest.pipeline import CONSUMERS, Pipeline
from stream.kafka.broker_view import BrokerView
from stream.serving.champion_watch import ChampionWatch
from stream.serving.output_loop import OutputLoop
from stream.telemetry import DATA_AGE
from stream.topics import HEARTBEATS
from stream.worker.freshness import Freshness, Refusals

RATE_OVER_S = 3.0
#: The broker answers an idle consumer ten times a second.
BROKER_SILENT_MS = 5_000


class WorkerStatistics:
    """Collects the statistics of one worker; see docs/architecture.md for the document's fields."""

    def __init__(
        self,
        worker_id: str,
        pipeline: Pipeline,
        output: OutputLoop,
        champion: ChampionWatch,
        broker: BrokerView,
    ) -> None:
        self._worker_id = worker_id
        self._pipeline = pipeline
        self._output = output
        self._champion = champion
        self._broker = broker
        self._freshness = Freshness(broker.answer)
        self._refusals = Refusals()
        self._as_of_ms: dict[int, int] = {}
        DATA_AGE.set_function(self._data_age_s)
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
        refusing = self._refusals.refusing(pipeline.accepted, pipeline.refused)
        as_of_ms = self._freshness.observe(self._stored())
        if not refusing:
            self._as_of_ms = as_of_ms
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
            "lag": self._total_lag(at_ms),
            "as_of_ms": {str(number): at for number, at in self._as_of_ms.items()},
            "broker_ms": self._broker_ms(),
            "refusing": refusing,
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

    def _stored(self) -> dict[int, dict[str, int]]:
        """Next offset to be stored of each owned input; a heartbeat may wait for good reasons."""
        stored: dict[int, dict[str, int]] = {}
        for number, owned in self._pipeline.owner.owned.items():
            counted = owned.partition.state.positions
            stored[number] = {
                topic: min(counted.get(topic, 0), owned.stored.get(topic, counted.get(topic, 0)))
                for topic in CONSUMERS
                if topic != HEARTBEATS.name
            }
        return stored

    def _data_age_s(self) -> float:
        """Seconds since all owned partitions were last complete; NaN before they were."""
        oldest_ms = min(self._as_of_ms.values(), default=None)
        return math.nan if oldest_ms is None else (wall_clock_ms() - oldest_ms) / 1_000

    def _inputs(self) -> list[TP]:
        return [TP(topic, n) for n in self._pipeline.owner.owned for topic in CONSUMERS]

    def _broker_ms(self) -> int | None:
        """When the broker last answered for any owned input."""
        answers = map(self._broker.answer, self._inputs())
        return max((one.at_ms for one in answers if one and one.at_ms), default=None)

    def _total_lag(self, at_ms: int) -> int | None:
        """Records that wait; None while the broker does not answer, which may have more."""
        answered_ms = self._broker_ms()
        if answered_ms is None or at_ms - answered_ms > BROKER_SILENT_MS:
            return None
        lags = [self._broker.lag(tp) for tp in self._inputs()]
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
