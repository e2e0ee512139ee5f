"""The laws of the output loop: a partition that moves away is served and published no more."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import HOUR_MS
from stream.partition.closed import Closed, ClosedBuckets
from stream.scoring.live_scoring import LiveScoring
from stream.scoring.rollup_means import RollupMeans
from stream.serving.output_loop import OutputLoop
from stream.settings import CalibrationSettings
from stream.state.forecast_sums import ForecastSums, pack_sums
from stream.state.keys import ROLLUPS, Tag
from stream.state.port import Path
from tests.support.memory_serving import ScriptedServer

MOMENTS = ("swap_in", "advance", "score", "sums", "forecast")


class Recorder(ScriptedServer):
    """Server, sink and read side in one: records writes, and calls a test's `step_in`."""

    def __init__(self) -> None:
        super().__init__()
        self.step_in: dict[str, Any] = {}
        self.topics: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.watermarks_ms: list[int] = []
        self.forecasts = True

    def moment(self, name: str) -> None:
        if name in self.step_in:
            self.step_in.pop(name)()

    def swap_in(self) -> bool:
        self.moment("swap_in")
        return super().swap_in()

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        self.moment("advance")
        return super().advance(tag, through_ms) if self.forecasts else None

    async def forecast(self, tag: Tag, forecast: QuantileForecast, **more: Any) -> None:
        self.moment("forecast")
        self.watermarks_ms.append(more["watermark_ms"])

    async def send(self, topic: str, records: Any) -> int:
        self.topics.append(topic)
        made = list(records)
        if topic == "forecasts":
            self.records += [json.loads(record) for _, record in made]
        return len(made)


@dataclass
class Store:
    """What scoring and the sums of means read; each kind of read is a moment of the recorder."""

    recorder: Recorder
    versions: int = 0

    def blobs(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        self.recorder.moment("score")
        return [None] * len(paths)

    def hash(self, tag: Tag, path: Path) -> dict[bytes, bytes]:
        return {}

    def closed(self, tag: Tag, starts: Sequence[int]) -> tuple[int, NDArray[np.float32]]:
        return 0, np.zeros((len(starts), 1, len(FEATURE_NAMES)), np.float32)

    def sums(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        self.recorder.moment("reconciled")
        units = np.full((1, 2), 7.0 + self.versions)
        sums = ForecastSums.of(HOUR_MS, ["A"], units, np.ones((2, 2)))
        return [pack_sums(sums)]

    def categories(self, tag: Tag) -> tuple[object, Callable[[], dict[str, str]]]:
        self.recorder.moment("sums")
        return 0, dict

    def version(self) -> int:
        if "changed" in self.recorder.step_in:
            self.versions += 1
            self.recorder.moment("changed")
        return self.versions


@contextmanager
def running(recorder: Recorder) -> Iterator[OutputLoop]:
    """An output loop on the recorder."""
    store = Store(recorder)
    output = OutputLoop(
        recorder,
        recorder,
        recorder,
        bucket_ms=HOUR_MS,
        publish_every_ms=0,
        clock_ms=lambda: 0,
        scoring=LiveScoring(CalibrationSettings(), store),
        means=RollupMeans(store.sums, store.categories, lambda _: 1, store.version, partitions=1),
    )
    task = asyncio.create_task(output.run())
    yield output
    assert not task.done(), "the loop must survive a partition that moves away"
    task.cancel()


def bucket(tag: Tag) -> ClosedBuckets:
    """One closed bucket of one series."""
    closed = Closed(0, np.ones((1, len(FEATURE_NAMES)), np.float32), {})
    return ClosedBuckets(tag, ["A"], [closed], HOUR_MS)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():  # noqa: ASYNC110 - the loop tells nobody, it is only looked at
        await asyncio.sleep(0.01)


async def until_idle(output: OutputLoop) -> None:
    """Wait until all is published."""
    await until(lambda: output.idle)


async def test_a_forecast_tells_the_watermark_not_its_origin() -> None:
    recorder = Recorder()
    with running(recorder) as output:
        for tag, watermark_ms in ((0, HOUR_MS + 90_000), (1, 0)):
            output.put(replace(bucket(tag), watermark_ms=watermark_ms))
        await until_idle(output)

    told = {record["watermark_ms"] for record in recorder.records}
    assert told == set(recorder.watermarks_ms) == {HOUR_MS + 90_000, HOUR_MS}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_partition_may_move_away_at_any_moment(moment: str) -> None:
    """It leaves no forecast, nothing breaks, and the next close is served."""
    recorder = Recorder()
    with running(recorder) as output:
        recorder.step_in[moment] = lambda: output.forget(0)
        output.put(bucket(0))
        await until_idle(output)
        assert "forecasts" not in recorder.topics
        assert recorder.forgotten

        output.put(bucket(1))
        await until_idle(output)
        assert recorder.topics.count("forecasts") == 1


@pytest.mark.parametrize("moment", ["reconciled", "changed", "forecast"])
async def test_the_roll_ups_may_move_away_at_any_moment(moment: str) -> None:
    """Neither their first forecast nor the one that is summed again is published then."""
    recorder = Recorder()
    with running(recorder) as output:
        recorder.step_in[moment] = lambda: output.forget(ROLLUPS)
        output.put(bucket(ROLLUPS))
        await until(lambda: not recorder.step_in)
        await until_idle(output)
        assert "forecasts" not in recorder.topics

        output.put(bucket(0))
        await until_idle(output)
        assert recorder.topics.count("forecasts") == 1


async def test_queued_closes_of_a_partition_that_moved_away_are_not_published() -> None:
    """The next owner publishes them, from the store."""
    recorder = Recorder()
    with running(recorder) as output:
        output.put(bucket(0))
        output.forget(0)
        await until_idle(output)
        assert recorder.topics in ([], ["features"])  # an empty send at most
        assert output.forecasts == 0


async def test_states_stepped_while_a_partition_moves_away_are_dropped() -> None:
    """Also without a new bucket: another owner may have continued since."""
    recorder = Recorder()
    with running(recorder) as output:

        def moved() -> None:
            output.forget(0)
            recorder.forgotten.clear()

        recorder.step_in["advance"] = moved
        recorder.forecasts = False
        output.put(bucket(0))
        await until_idle(output)
        assert recorder.forgotten == [0]


async def test_a_cancellation_that_comes_with_a_close_is_obeyed() -> None:
    """The loop ends at once, though a close arrives in the same turn."""
    recorder = Recorder()
    output = OutputLoop(
        recorder,
        recorder,
        recorder,
        bucket_ms=HOUR_MS,
        publish_every_ms=0,
        clock_ms=lambda: 0,
    )
    task = asyncio.create_task(output.run())
    await asyncio.sleep(0.01)  # it waits for a close
    output.put(bucket(0))
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    task.cancel()
    assert done
