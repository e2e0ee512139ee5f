"""Means of roll-ups are the sums of those of their series, over all partitions."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import HOUR_MS
from stream.partition.closed import Closed, ClosedBuckets
from stream.scoring import summed_rollups
from stream.scoring.rollup_means import RollupMeans
from stream.scoring.rollup_sums import RollupMembers
from stream.serving.output_loop import OutputLoop
from stream.state.forecast_sums import KEPT
from stream.state.keys import ROLLUPS, Tag
from stream.state.port import Path, ReadSideWrite
from tests.support.memory_serving import ScriptedServer

SERIES: dict[Tag, list[str]] = {
    0: ["A@Berlin", "B@Berlin", "C"],
    1: ["A@Paris", "D@Berlin", "E"],
    2: [],
    ROLLUPS: ["total", "location:Berlin", "category:bags", "category:gone", "location:Paris"],
}
CATEGORIES: dict[Tag, dict[str, str]] = {0: {"A": "bags", "C": "toys"}, 1: {"A": "bags"}, 2: {}}
HORIZON = 2


@dataclass
class MemoryMeans:
    """A store of sums for `RollupMeans`."""

    blobs: dict[tuple[Tag, Path], bytes] = field(default_factory=dict)
    version: int = 0

    def read(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        """Blobs of a partition."""
        return [self.blobs.get((tag, path)) for path in paths]

    def reader(self) -> RollupMeans:
        """Sums of three partitions, of which one has no series."""
        return RollupMeans(
            self.read,
            lambda tag: (self.version, lambda: CATEGORIES[tag]),
            lambda tag: len(SERIES[tag]),
            lambda: dict(self.blobs),
            partitions=3,
        )


def forecast_of(
    tag: Tag, origin_ms: int = 9 * HOUR_MS, *, horizon: int = HORIZON
) -> QuantileForecast:
    """Means of 1, 2, … units for the series of a partition, plus 10 in the second bucket."""
    size = len(SERIES[tag])
    mean_SH = np.arange(1, size + 1, dtype=np.float32)[:, None] + 10 * np.arange(horizon)
    units_SHQ = mean_SH[..., None].astype(np.float32)
    return QuantileForecast(
        origin_ms, HOUR_MS, (0.5,), units_SHQ, units_SHQ.cumsum(1), mean_SH.astype(np.float32), "m"
    )


def store_sums(stored: MemoryMeans, *tags: Tag, origin_ms: int = 9 * HOUR_MS) -> None:
    """Store the sums of some partitions, as their workers do."""
    for tag in tags:
        path, payload = stored.reader().sums_of(tag, SERIES[tag], forecast_of(tag, origin_ms))
        stored.blobs[tag, path] = payload


def test_roll_ups_add_up_over_partitions() -> None:
    stored = MemoryMeans()
    store_sums(stored, 0, 1)

    made = stored.reader().reconciled(SERIES[ROLLUPS], forecast_of(ROLLUPS))

    assert made is not None
    # total 1+2+3 + 1+2+3; Berlin A, B of the first and D of the second; bags both A; none; Paris
    assert made.mean_SH.tolist() == [[12, 72], [5, 35], [2, 22], [0, 0], [1, 11]]
    np.testing.assert_array_equal(made.units_SHQ, forecast_of(ROLLUPS).units_SHQ)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: stored.blobs.pop(next(iter(stored.blobs))),
        lambda stored: store_sums(stored, 1, origin_ms=(9 + KEPT) * HOUR_MS),
    ],
    ids=["one partition is late", "one is a whole ring ahead"],
)
def test_no_sum_of_different_origins(spoil: Any) -> None:
    stored = MemoryMeans()
    store_sums(stored, 0, 1)
    spoil(stored)

    assert stored.reader().reconciled(SERIES[ROLLUPS], forecast_of(ROLLUPS)) is None


def test_no_sum_of_another_horizon() -> None:
    stored = MemoryMeans()
    store_sums(stored, 0, 1)

    longer = forecast_of(ROLLUPS, horizon=HORIZON + 1)
    assert stored.reader().reconciled(SERIES[ROLLUPS], longer) is None


def test_a_partition_that_is_ahead_still_has_the_origin() -> None:
    stored = MemoryMeans()
    store_sums(stored, 0, 1)
    for ahead in range(1, KEPT):
        store_sums(stored, 1, origin_ms=(9 + ahead) * HOUR_MS)

    made = stored.reader().reconciled(SERIES[ROLLUPS], forecast_of(ROLLUPS))
    assert made is not None
    assert made.mean_SH[0].tolist() == [12, 72]


def test_a_new_series_and_a_new_category_count_from_their_first_forecast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = MemoryMeans()
    means = stored.reader()
    first = forecast_of(0)
    means.sums_of(0, SERIES[0][:2], replace(first, mean_SH=first.mean_SH[:2]))
    monkeypatch.setitem(CATEGORIES, 0, {"A": "bags", "B": "bags"})
    path, payload = means.sums_of(0, SERIES[0], first)  # a series more, so its catalog is read
    stored.blobs[0, path] = payload
    store_sums(stored, 1)

    made = stored.reader().reconciled(SERIES[ROLLUPS], forecast_of(ROLLUPS))
    assert made is not None
    assert made.mean_SH[[0, 2], 0].tolist() == [12, 1 + 2 + 1]


def test_series_that_came_after_the_forecast_are_not_in_its_sums() -> None:
    stored = MemoryMeans()
    made = forecast_of(0)
    shorter = replace(made, mean_SH=made.mean_SH[:2])
    path, payload = stored.reader().sums_of(0, SERIES[0], shorter)
    stored.blobs[0, path] = payload
    store_sums(stored, 1)

    summed = stored.reader().reconciled(SERIES[ROLLUPS], forecast_of(ROLLUPS))
    assert summed is not None
    assert summed.mean_SH[0, 0] == (1 + 2) + (1 + 2 + 3)


def test_sums_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    series = [f"S{n}@L{n % 7}" if n % 3 else f"S{n}" for n in rng.permutation(500)]
    categories = {f"S{n}": f"c{n % 11}" for n in range(0, 500, 2)}
    values_SH = rng.gamma(1.0, size=(500, 4))
    members = RollupMembers(series, categories)
    sums = dict(zip(members.names, members.sums(values_SH), strict=True))

    for n in range(11):
        held = [slot for slot, name in enumerate(series)
                if categories.get(name.partition("@")[0]) == f"c{n}"]  # fmt: skip
        np.testing.assert_allclose(sums[f"category:c{n}"], values_SH[held].sum(axis=0))
    for n in range(7):
        held = [slot for slot, name in enumerate(series) if name.endswith(f"@L{n}")]
        np.testing.assert_allclose(sums[f"location:L{n}"], values_SH[held].sum(axis=0))
    np.testing.assert_allclose(sums["total"], values_SH.sum(axis=0))
    assert len(sums) == 1 + 7 + 11


class Served(ScriptedServer):
    """Server, sink and read side of an output loop; writes go to the store of sums."""

    def __init__(self, stored: MemoryMeans) -> None:
        super().__init__()
        self.stored = stored
        self.written: dict[Tag, QuantileForecast] = {}
        self.topics: list[str] = []

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        """The forecast of a partition at an origin."""
        return forecast_of(tag, through_ms)

    async def forecast(
        self, tag: Tag, forecast: QuantileForecast, *,
        calibrated: bool, watermark_ms: int, emitted_ms: int, write: ReadSideWrite | None = None,
    ) -> None:  # fmt: skip
        """Store forecast and sums."""
        assert write is not None
        self.written[tag] = forecast
        self.stored.blobs |= {(tag, path): payload for path, payload in write.puts.items()}

    async def send(self, topic: str, records: Any) -> int:
        """Count the records."""
        self.topics.append(topic)
        return len(list(records))


async def _forecast_all(
    served: Served, *tags: Tag, then: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Close one bucket of some partitions in one batch, the given order; then something else."""
    output = OutputLoop(
        served, served, served, bucket_ms=HOUR_MS, publish_every_ms=0, clock_ms=lambda: 0,
        means=served.stored.reader(),
    )  # fmt: skip
    task = asyncio.create_task(output.run())
    for tag in tags:
        values_SF = np.ones((len(SERIES[tag]), len(FEATURE_NAMES)), np.float32)
        closed = [Closed(8 * HOUR_MS, values_SF, {})]
        output.put(ClosedBuckets(tag, SERIES[tag], closed, 9 * HOUR_MS))
    async with asyncio.timeout(30):
        while not output.idle:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.01)
        if then is not None:
            await then()
    task.cancel()


async def test_roll_ups_of_a_batch_are_forecast_after_its_partitions() -> None:
    served = Served(MemoryMeans())
    await _forecast_all(served, ROLLUPS, 1, 0)

    assert served.written[ROLLUPS].mean_SH[0].tolist() == [12, 72]


async def test_roll_ups_wait_for_the_partitions_of_another_worker() -> None:
    served = Served(MemoryMeans())
    other = asyncio.get_running_loop().call_later(0.3, store_sums, served.stored, 1)
    await _forecast_all(served, ROLLUPS, 0)

    assert not other.cancelled()
    assert served.written[ROLLUPS].mean_SH[0].tolist() == [12, 72]


async def test_roll_ups_keep_their_own_means_if_another_worker_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summed_rollups, "MEANS_WITHIN_S", 0.1)
    served = Served(MemoryMeans())
    await _forecast_all(served, ROLLUPS, 0)

    np.testing.assert_array_equal(served.written[ROLLUPS].mean_SH, forecast_of(ROLLUPS).mean_SH)


async def test_roll_ups_are_summed_again_when_another_worker_forecasts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a swap of its own, or long after this one has given up waiting."""
    monkeypatch.setattr(summed_rollups, "MEANS_WITHIN_S", 0.1)
    monkeypatch.setattr(summed_rollups, "LOOK_AGAIN_S", 0.05)
    served = Served(MemoryMeans())
    twice = forecast_of(1)
    twice = replace(twice, mean_SH=2 * twice.mean_SH)
    found: list[list[float]] = []

    async def other_worker() -> None:
        for made in (forecast_of(1), twice):
            before = served.written[ROLLUPS]
            path, payload = served.stored.reader().sums_of(1, SERIES[1], made)
            served.stored.blobs[1, path] = payload
            while served.written[ROLLUPS] is before:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            found.append(served.written[ROLLUPS].mean_SH[0].tolist())

    await _forecast_all(served, ROLLUPS, 0, then=other_worker)

    # 1+2+3 of its own and 1+2+3 of the other; after that twice those of the other
    assert found == [[12, 72], [18, 36 + 72]]
    assert served.topics.count("forecasts") >= 3
