"""Live coverage and accuracy over a replay of the shipped orders, with and without calibration.

    python -m benchmarks.calibration                     # the pretrained network, all series
    python -m benchmarks.calibration --registry var/registry   # its champion
    python -m benchmarks.calibration --naive                   # the seasonal naive

Every closed bucket goes through the objects of a worker (the forecaster of
`stream.serving.model_server` and `stream.scoring.live_scoring`), partition by partition; only Kafka
and Redis are replaced by arrays. The tables cover all scores after the first tenth of the replay.

Axes: T = buckets, S = series, F = features, V = volume classes, H = horizon steps, K = sums.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.durations import HOUR_MS
from model.evaluation.score_sums import N_SUMS, VOLUMES, score_of
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.pretraining.shipped import pretrained, shipped
from stream.jobs.files.event_files import read_catalog, read_orders
from stream.jobs.files.sample import REPLAY_START_MS, sample_catalog, sample_orders
from stream.jobs.history.from_files import build_history
from stream.jobs.history.sparse_history import SparseHistory
from stream.kafka.producer import partition_of
from stream.registry.model_registry import Registry
from stream.scoring.live_scoring import LiveScoring
from stream.settings import CalibrationSettings, ModelSettings
from stream.state.keys import ROLLUPS, Tag
from stream.state.port import Path, ReadSideWrite

WARM_UP = 28 * 24
N_PARTITIONS = 4

Floats = NDArray[np.float32]


@dataclass
class ArrayReads:
    """`ScoringReads` on arrays in memory; `write` replaces the read side."""

    start_ms: int
    bucket_ms: int
    values_TSF: Floats
    stored: dict[Path, bytes] = field(default_factory=dict)
    fields: dict[Path, dict[bytes, bytes]] = field(default_factory=dict)

    def blobs(self, tag: Tag, paths: Sequence[Path]) -> list[bytes | None]:
        """Blobs; None where absent."""
        return [self.stored.get(path) for path in paths]

    def hash(self, tag: Tag, path: Path) -> dict[bytes, bytes]:
        """All fields of a hash."""
        return dict(self.fields.get(path, {}))

    def closed(self, tag: Tag, starts: Sequence[int]) -> tuple[int, Floats]:
        """The first stored bucket, and the buckets [T, S, F] that start at `starts`."""
        places = np.array([(start - self.start_ms) // self.bucket_ms for start in starts])
        picked_TSF = self.values_TSF[np.maximum(places, 0)]
        picked_TSF[places < 0] = 0.0
        return self.start_ms, picked_TSF

    def write(self, block: ReadSideWrite) -> None:
        """Apply the writes of a forecast."""
        self.stored |= block.puts
        for path, fields in block.fields.items():
            into = self.fields.setdefault(path, {})
            into |= {name.encode(): value for name, value in fields.items()}
        for path in block.deletes:
            self.stored.pop(path, None)
            self.fields.pop(path, None)


def replayed(
    forecaster: Forecaster,
    reads: ArrayReads,
    settings: CalibrationSettings,
    *,
    tag: Tag,
    first: int,
    last: int,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Place of each bucket from `first` to `last`, and its sums [V, H, K], as in a worker."""
    scoring = LiveScoring(settings, reads)
    values_TSF, bucket_ms = reads.values_TSF, reads.bucket_ms
    states = forecaster.new_states(values_TSF.shape[1])
    forecaster.warm_up(states, values_TSF[: first - 1], reads.start_ms)
    for at in range(first - 1, last):
        forecast = forecaster.step(states, values_TSF[at], reads.start_ms + at * bucket_ms)
        scored = scoring.score_and_correct(tag, forecast)
        reads.write(scored.write)
        shape = (len(VOLUMES), forecast.units_SHQ.shape[1], N_SUMS)
        yield at, sum((score.sums_VHK for score in scored.scores), np.zeros(shape))


def sample_history() -> SparseHistory:
    """Hourly buckets of the shipped orders, from four weeks before the start of the replay."""
    orders = read_orders(sample_orders())
    start_ms = REPLAY_START_MS - WARM_UP * HOUR_MS
    return build_history(
        orders, catalog=read_catalog(sample_catalog()), bucket_ms=HOUR_MS, start_ms=start_ms
    )


def partitions(history: SparseHistory, *, n_series: int | None) -> Iterator[tuple[Tag, Floats]]:
    """Closed blocks [T, S, F] of each input partition and of the roll-ups."""
    chosen = history.largest(n_series) if n_series else range(len(history.series))
    slots: dict[Tag, list[int]] = {}
    for slot in chosen:
        sku = history.skus[slot]
        tag: Tag = partition_of(sku.encode(), N_PARTITIONS) if sku else ROLLUPS
        slots.setdefault(tag, []).append(slot)
    for tag in sorted(slots, key=str):
        yield tag, history.dense(slots[tag])


def main() -> None:
    """Live coverage and accuracy over a replay, with calibration on and off."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--registry", help="folder or URL of a registry; its champion forecasts")
    parser.add_argument("--naive", action="store_true", help="the seasonal naive forecasts")
    parser.add_argument("--series", type=int, help="use only the largest series, and the roll-ups")
    parser.add_argument("--days", type=int, help="use only the first days of the replay")
    parser.add_argument("--rate", type=float, default=CalibrationSettings().rate)
    given = parser.parse_args()
    history = sample_history()
    last = history.buckets - 1
    if given.days:
        last = min(last, WARM_UP + given.days * 24)
    scored_from = WARM_UP + (last - WARM_UP) // 10
    bar = Progress(console=Console(stderr=True))
    with bar:
        for enabled in (True, False):
            settings = CalibrationSettings(enabled=enabled, rate=given.rate)
            sums: NDArray[np.float64] | float = 0.0
            began_s, spent = time.perf_counter(), 0
            task = bar.add_task("on" if enabled else "off", total=(N_PARTITIONS + 1) * last)
            for tag, values_TSF in partitions(history, n_series=given.series):
                forecaster = _forecaster(given.registry, naive=given.naive)
                reads = ArrayReads(history.start_ms, HOUR_MS, values_TSF)
                for at, more in replayed(
                    forecaster, reads, settings, tag=tag, first=WARM_UP, last=last
                ):
                    spent += 1
                    bar.update(task, completed=spent)
                    if at >= scored_from:
                        sums = sums + more
            took_s = time.perf_counter() - began_s
            print(f"\ncalibration {'on' if enabled else 'off'}: {took_s:.0f} s")
            print(table(np.asarray(sums)))
    sys.stdout.flush()


def table(sums_VHK: NDArray[np.float64]) -> str:
    """Coverage and WQL by volume class: of all steps, and of the extreme steps.

    `off` are the steps out of 0.78–0.82; `sums` are those of cumulative demand.
    """
    lines = [
        "class    labels   80 % band  least  most   off  98 % band   sums   least  most   off"
        "  closed   WQL    naive   bias"
    ]
    for volume, sums_HK in zip(VOLUMES, sums_VHK, strict=True):
        if not sums_HK[:, 0].any():
            continue
        overall, steps = score_of(sums_HK), [score_of(sums_K) for sums_K in sums_HK]
        buckets = _spread(overall.coverage, [step.coverage for step in steps])
        sums = _spread(overall.cumulative_coverage, [step.cumulative_coverage for step in steps])
        lines.append(
            f"{volume:8} {overall.labels:9,} {buckets} {overall.outer_coverage or 0:8.3f}   {sums}"
            f" {overall.interval_coverage or 0:6.3f} {overall.wql or 0:7.4f}"
            f" {overall.naive_wql or 0:7.4f} {overall.bias or 0:+7.3f}"
        )
    return "\n".join(lines)


def _spread(overall: float | None, by_step: Sequence[float | None]) -> str:
    """Coverage of all steps, the least and the most of a step, and the steps out of range."""
    known = [cover for cover in by_step if cover is not None]
    if overall is None or not known:
        return f"{'–':>8} {'–':>7} {'–':>6} {'–':>4}"
    off = sum(not 0.78 <= cover <= 0.82 for cover in known)
    return f"{overall:8.3f} {min(known):7.3f} {max(known):6.3f} {off:4d}"


def _forecaster(registry: str | None, *, naive: bool) -> Forecaster:
    if naive:
        return SeasonalNaiveForecaster(
            horizon=24, bucket_ms=HOUR_MS, quantiles=ModelSettings().quantiles
        )
    if registry is None:
        network = pretrained(bucket_ms=HOUR_MS, horizon=24, country="GB")
        return NetworkForecaster(network, shipped()[1].model_id)
    models = Registry(registry)
    champion = models.champion()
    if champion is None:
        raise SystemExit(f"{registry} has no champion")
    return models.load(champion, "cpu")


if __name__ == "__main__":
    main()
