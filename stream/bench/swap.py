"""`surgecast bench swap`: a busy worker switches to another model.

The store has a synthetic history of many series. A worker forecasts them with a first model while
more events arrive than it can count. Then a second model is handed over with warm states, as a
trainer does, and becomes champion. It measures the time of the hand-over, of the worker's warm-up
and of the switch, in which the worker does not forecast, and the slow-down of ingest; with `cold`
the worker warms up all states itself.

The ingest rate drifts while a backlog is worked off. The hand-over is therefore paused and resumed
in turns, and the swap is compared with the rates before and after it. The weights are random, since
they do not change the cost, and the check of a candidate's forecasts compares two random models.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from statistics import fmean, median
from threading import Event
from typing import Any, Final

import torch
from redis import Redis

from model.durations import HOUR_MS, MINUTE_MS
from model.inference.forecaster import NetworkForecaster
from stream.bench.ingest import counted
from stream.bench.report import Row
from stream.bench.swap_load import Load, fill, halves, random_weights, send
from stream.bench.workload import Workload, click_records, order_records
from stream.clock import wall_clock_ms
from stream.errors import EmbeddedServiceFailed
from stream.jobs.training.handover import hand_over_states
from stream.jobs.training.role import NICENESS
from stream.kafka.admin import create_topics
from stream.ops.embedded import embedded_broker, embedded_store
from stream.ops.supervisor import COMMAND
from stream.processes.child import ServiceProcess
from stream.registry.announcements import ModelRecord, announce
from stream.registry.model_registry import Registry
from stream.settings import Settings, child_environment
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag
from stream.topics import CLICKS, ORDERS

_TIMEOUT_S: Final = 420.0
_WINDOW_S: Final = 5.0
_TURN_S: Final = 2.0
#: If no event is counted for this time, all events have been counted.
_IDLE_S: Final = 3.0


def bench_swap(
    settings: Settings,
    *,
    series: int,
    hours: int,
    events: int,
    cold: bool,
    notify: Callable[[str], None],
) -> list[Row]:
    """Swap models in one worker of `series` series with `hours` of history each.

    Half of the events are sent before the hand-over, half before the swap; with `cold`, all before
    the swap.
    """
    with embedded_broker(settings) as broker, embedded_store(settings) as store:
        kafka = {"bootstrap_servers": broker.bootstrap_servers, "session_timeout": 6_000}
        deployed = settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(update=kafka),
                "redis": settings.redis.model_copy(update={"url": store.url}),
            }
        )
        create_topics(deployed)
        client = Redis.from_url(store.url)
        notify(f"storing {hours} hours of {series:,} series")
        fill(client, deployed, series=series, hours=hours)
        work = Workload(events=events, skus=series, span_ms=HOUR_MS - MINUTE_MS)
        load: Load = [
            (CLICKS.name, list(click_records(work))),
            (ORDERS.name, list(order_records(work))),
        ]
        registry = Registry(deployed.registry_path)
        first, second = (registry.publish(random_weights(deployed, seed)) for seed in (1, 2))
        registry.promote(first)
        log = deployed.data_dir / "logs" / "worker.log"
        with ServiceProcess.start(
            "worker", [*COMMAND, "worker"], log_path=log, environment=child_environment(deployed)
        ):
            swap = _Swap(client, deployed, registry, notify=notify)
            return swap.measure(load, models=(first, second), cold=cold)


class _Swap:
    """Measures a swap in a running worker."""

    def __init__(
        self, client: Redis, settings: Settings, registry: Registry, notify: Callable[[str], None]
    ) -> None:
        self._client = client
        self._settings = settings
        self._registry = registry
        self._notify = notify

    def measure(self, load: Load, *, models: tuple[str, str], cold: bool) -> list[Row]:
        """The rows of one run."""
        first, second = models
        self._notify("the first model warms up")
        began_s = time.monotonic()
        self._await(lambda: self._served_by(first), "the first model")
        begun = Row("cold_start", round(time.monotonic() - began_s, 1), "s")
        if cold:
            return [begun, *self._swap(load, second)]
        earlier, later = halves(load)
        return [begun, *self._hand_over(earlier, second), *self._swap(later, second)]

    def _hand_over(self, load: Load, model_id: str) -> list[Row]:
        """Warm up the states as a trainer does, in a separate process."""
        with ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=os.nice, initargs=(NICENESS,)
        ) as trainer:
            pid = trainer.submit(os.getpid).result()  # do not measure the start of the process
            self._send(load)
            self._notify("the second model's states are warmed up and handed over")
            began_s = time.monotonic()
            handing = trainer.submit(
                _hand_over_in_process,
                str(self._settings.redis.url),
                self._settings.registry_path,
                self._settings.states_path,
                model_id,
                self._settings.trainer.threads,
            )
            without, during, stopped_s = self._in_turns(pid, handing.done)
            handing.result()
        seconds = time.monotonic() - began_s - stopped_s
        return [Row("hand_over", round(seconds, 1), "s"), *_rates("hand_over", without, during)]

    def _in_turns(
        self, pid: int, over: Callable[[], bool]
    ) -> tuple[float | None, float | None, float]:
        """Events counted per second while a process is stopped and while it runs, in turns.

        Also returns for how many seconds it was stopped.
        """
        rates: dict[bool, list[float]] = {False: [], True: []}
        stopped_s = 0.0
        running = True
        while not over():
            began_s = time.monotonic()
            try:
                if not running:
                    os.kill(pid, signal.SIGSTOP)
                rate = self._rate(over, seconds=_TURN_S)
            finally:
                os.kill(pid, signal.SIGCONT)
            stopped_s += 0 if running else time.monotonic() - began_s
            if rate is None:
                break  # all events are counted, or the hand-over has ended
            rates[running].append(rate)
            running = not running
        return _median(rates[False]), _median(rates[True]), stopped_s

    def _swap(self, load: Load, model_id: str) -> list[Row]:
        """Make the model the champion and wait until it serves all partitions."""
        self._send(load)
        before = self._rate(lambda: False, seconds=_WINDOW_S)
        self._notify("the second model becomes champion")
        self._registry.promote(model_id, note="bench")
        now_ms = wall_clock_ms()
        announce(self._settings, ModelRecord("promote", model_id, "bench", now_ms))
        began_s = time.monotonic()
        with ThreadPoolExecutor(1) as background:
            served = Event()
            counting = background.submit(self._rate, served.is_set, seconds=_TIMEOUT_S)
            self._await(lambda: self._served_by(model_id, some=True), "the second model")
            turned_s = time.monotonic()
            self._await(lambda: self._served_by(model_id), "the second model")
            ended_s = time.monotonic()
            served.set()
            during = counting.result()
        after = self._rate(lambda: False, seconds=_WINDOW_S)
        around = [rate for rate in (before, after) if rate is not None]
        return [
            Row("warm_up", round(ended_s - began_s, 1), "s"),
            Row("switch", round(ended_s - turned_s, 2), "s"),
            *_rates("swap", _mean(around), during),
        ]

    def _send(self, load: Load) -> None:
        self._notify(f"sending {sum(len(records) for _, records in load):,} events")
        asyncio.run(send(self._settings, load))

    def _rate(self, over: Callable[[], bool], *, seconds: float) -> float | None:
        """Events per second for `seconds` or until `over`; None if all events were counted."""
        partitions = self._settings.kafka.partitions
        began = last = (time.monotonic(), counted(self._client, partitions))
        looked_s = began[0]
        while looked_s - began[0] < seconds and not over():
            time.sleep(0.1)
            looked_s = time.monotonic()
            now = counted(self._client, partitions)
            if now > last[1]:
                last = (looked_s, now)
            elif looked_s - last[0] > _IDLE_S:
                break
        if last[0] - began[0] < min(seconds, _TURN_S) / 2:
            return None
        return (last[1] - began[1]) / (last[0] - began[0])

    def _served_by(self, model_id: str, *, some: bool = False) -> bool:
        """True if the forecasts of all partitions (with `some`: of any) are from this model."""
        tags: list[Tag] = [*range(self._settings.kafka.partitions), ROLLUPS]
        found: list[Any] = [self._client.hget(keys.of(tag, "forecast"), "model_id") for tag in tags]
        mine = [name == model_id.encode() for name in found]
        return any(mine) if some else all(mine)

    def _await(self, done: Callable[[], bool], what: str) -> None:
        began_s = time.monotonic()
        while not done():
            if time.monotonic() - began_s > _TIMEOUT_S:
                raise EmbeddedServiceFailed(f"{what} did not serve within {_TIMEOUT_S:.0f} s")
            time.sleep(0.02)


def _hand_over_in_process(
    url: str, registry_path: str, states_path: str, model_id: str, threads: int
) -> None:
    """Run in the trainer's process."""
    torch.set_num_threads(threads)
    network = Registry(registry_path).network(model_id)
    forecaster = NetworkForecaster(network, model_id, threads=threads)
    hand_over_states(Redis.from_url(url), states_path, forecaster)


def _rates(what: str, without: float | None, during: float | None) -> list[Row]:
    if without is None or during is None:
        raise EmbeddedServiceFailed(
            f"all events were counted before the end of the {what}; give more --events"
        )
    fall = {"fall": round(1 - during / without, 3)}
    return [
        Row(f"ingest_without_{what}", round(without), "events/s"),
        Row(f"ingest_beside_{what}", round(during), "events/s", fall),
    ]


def _median(rates: list[float]) -> float | None:
    return median(rates) if rates else None


def _mean(rates: list[float]) -> float | None:
    return fmean(rates) if rates else None
