"""The nine panels of other shops and counts as tasks of the accuracy benchmark.

`panel(name, folder)` reads one panel; PANELS lists them, with what is not in their files. A bucket
of months is a nominal month, `MONTH_MS` long; month k since 1970-01 starts at k · MONTH_MS. The
scored series are a random subset, seed 1, of those alive over all test origins, then the roll-ups:
the categories and the total over *all* series of the panel.

A bucket without a row is not observed: its truth is skipped, and its history is marked as censored
(sold out), so that the product takes it for unknown demand, not for none. Money and counts below 0
are returns.

Axes: T = buckets, S = series, F = features, N = rows, P = plan columns.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.accuracy.panel_list import MONTH_MS, PANELS, Panel
from benchmarks.accuracy.panel_plans import plans_of
from benchmarks.accuracy.tasks import Task
from model.contract import FEATURE_NAMES
from model.durations import DAY_MS
from model.history import History
from model.inputs.carried_statistics import (
    ORDERS,
    RETURNS,
    REVENUE,
    STOCK,
    STOCKOUT_SHARE,
    UNITS,
)
from model.inputs.static_features import static_row
from stream.series_ids import TOTAL, category_id

Floats = NDArray[np.float32]
#: Share of the usual demand whose rows may be absent in a bucket of an observed roll-up.
_ABSENT: Final = 0.1


def panel(name: str, folder: Path, *, covariates: bool = False) -> Task:
    """Read the panel `name` from its Parquet file in `folder`.

    With `covariates` the columns known in advance become the plans of the history. Raises KeyError
    for an unknown panel.
    """
    described = PANELS[name]
    return _Reader(described, pl.read_parquet(folder / f"{name}.parquet")).task(name, covariates)


def bucket_of(at: NDArray[np.datetime64], bucket_ms: int) -> NDArray[np.int64]:
    """Buckets since 1970 of dates or times; of months the nominal ones.

    >>> bucket_of(np.array(["1970-02-28", "1971-01-01"], "datetime64[D]"), MONTH_MS).tolist()
    [1, 12]
    >>> bucket_of(np.array(["1970-01-02T05"], "datetime64[h]"), 3_600_000).tolist()
    [29]
    """
    if bucket_ms == MONTH_MS:
        return at.astype("datetime64[M]").astype(np.int64)
    return at.astype("datetime64[ms]").astype(np.int64) // bucket_ms


@dataclass(frozen=True)
class _Reader:
    """The rows of a panel, and where they belong in dense blocks."""

    panel: Panel
    table: pl.DataFrame

    @cached_property
    def phase_ms(self) -> int:
        """Start of the first bucket that starts in 1970, for weeks; 0 for other buckets."""
        first = self._times(self.table["ts"])[0].astype("datetime64[ms]").astype(np.int64)
        shifted = int(first) - self.panel.behind_days * DAY_MS
        return shifted % self.panel.bucket_ms if self.panel.weekly else 0

    def _times(self, column: pl.Series) -> NDArray[np.datetime64]:
        values = column.to_numpy()
        return values if values.dtype.kind == "M" else values.astype("datetime64[ms]")

    def buckets(self, times: NDArray[np.datetime64]) -> NDArray[np.int64]:
        """Buckets since 1970, or since the phase, of times as the panel writes them."""
        if not self.panel.weekly:
            return bucket_of(times, self.panel.bucket_ms)
        moved = times.astype("datetime64[ms]").astype(np.int64)
        moved -= self.panel.behind_days * DAY_MS + self.phase_ms
        return moved // self.panel.bucket_ms

    def task(self, name: str, covariates: bool) -> Task:
        """The task, with plans if `covariates`."""
        panel = self.panel
        series = self.table["series_id"].unique().sort()
        bucket_N = self.buckets(self._times(self.table["ts"]))
        first = int(bucket_N.min())
        test, tune = (
            self.buckets(np.array(days, "datetime64[h]")) + 1 - first
            for days in (panel.test, panel.tune)
        )
        end = int(test[-1]) + panel.horizon
        inside = pl.Series(bucket_N < first + end)
        rows = self.table.filter(inside)
        place_N = bucket_N[inside.to_numpy()] - first
        slot_of = dict(zip(series, range(len(series)), strict=True))
        slot_N = np.array([slot_of[name] for name in rows["series_id"]], np.int64)

        values_TSF = np.zeros((end, len(series), len(FEATURE_NAMES)), np.float32)
        observed_TS = np.zeros((end, len(series)), np.bool_)
        units_N = rows["units"].to_numpy().astype(np.float32)
        values_TSF[place_N, slot_N, UNITS] = np.maximum(units_N, 0)
        values_TSF[place_N, slot_N, RETURNS] = np.maximum(-units_N, 0)
        values_TSF[place_N, slot_N, ORDERS] = units_N > 0
        if panel.price is not None:
            revenue_N = rows[panel.price].to_numpy() * units_N
            values_TSF[place_N, slot_N, REVENUE] = np.maximum(revenue_N, 0)
        observed_TS[place_N, slot_N] = True

        about = self.table.unique("series_id", keep="first").sort("series_id")
        category = about["category"].to_list() if "category" in about.columns else None
        scored = self._chosen(observed_TS, test)
        members = _members(category, len(series))
        rollups_TSF, known_TR = _rolled_up(values_TSF, observed_TS, members, panel.horizon)
        others = np.setdiff1d(np.arange(len(series)), scored)
        order = np.concatenate((scored, len(series) + np.arange(len(members)), others))
        values_TSF = np.concatenate((values_TSF, rollups_TSF), axis=1)[:, order]
        observed_TS = np.concatenate((observed_TS, known_TR), axis=1)[:, order]
        _censor(values_TSF, observed_TS)

        nothing = [None] * len(series)
        location = about[panel.location].cast(pl.String) if panel.location else nothing
        pairs = zip(category or nothing, location, strict=True)
        static_rows = [*(static_row(*pair) for pair in pairs), *[static_row()] * len(members)]
        plans = None
        if covariates:
            plans = plans_of(
                panel, rows, (place_N, slot_N), members=list(members.values()), order=order
            )
        names = [*series.to_list(), *members]
        start_ms = self.phase_ms + first * panel.bucket_ms
        history = History(
            values_TSF,
            start_ms,
            panel.bucket_ms,
            [names[s] for s in order],
            np.stack(static_rows)[order],
            plans,
        )
        return Task(
            name,
            history,
            len(scored) + len(members),
            panel.horizon,
            (start_ms + test * panel.bucket_ms).tolist(),
            (start_ms + tune * panel.bucket_ms).tolist(),
            season=panel.season,
            country=panel.country,
            observed_TS=observed_TS,
        )

    def _chosen(self, observed_TS: NDArray[np.bool_], test: NDArray[np.int64]) -> NDArray[np.int64]:
        """The scored series, rising: `panel.scored` of those alive over all test origins."""
        first_S = observed_TS.argmax(axis=0)
        last_S = len(observed_TS) - 1 - observed_TS[::-1].argmax(axis=0)
        alive_S = (first_S <= test[0] - self.panel.least_history) & (last_S >= test[-1])
        alive = np.flatnonzero(alive_S)
        if self.panel.scored is None or self.panel.scored >= alive.size:
            return alive
        rng = np.random.default_rng(1)
        return np.sort(rng.choice(alive, self.panel.scored, replace=False))


def _members(category: list[str] | None, size: int) -> dict[str, NDArray[np.int64]]:
    """Series of each roll-up by its id; a category of one series is no roll-up."""
    found: dict[str, list[int]] = {}
    for slot, name in enumerate(category or []):
        found.setdefault(name, []).append(slot)
    rollups = {
        category_id(name): np.array(slots)
        for name, slots in sorted(found.items())
        if 1 < len(slots) < size
    }
    return {**rollups, TOTAL: np.arange(size)}


def _rolled_up(
    values_TSF: Floats,
    observed_TS: NDArray[np.bool_],
    members: dict[str, NDArray[np.int64]],
    horizon: int,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Sums of the observed buckets, and where they are known.

    A series is expected from its first row to one horizon after its last; where much of the
    expected demand has no row, the roll-up is not known.
    """
    buckets = len(values_TSF)
    place_T1 = np.arange(buckets)[:, None]
    first_S = observed_TS.argmax(axis=0)
    last_S = buckets - 1 - observed_TS[::-1].argmax(axis=0)
    expected_TS = (place_T1 >= first_S) & (place_T1 <= last_S + horizon)
    level_S = values_TSF[:, :, UNITS].sum(axis=0) / np.maximum(observed_TS.sum(axis=0), 1)
    sums, known = [], []
    for slots in members.values():
        present = observed_TS[:, slots]
        usual_T = expected_TS[:, slots] @ level_S[slots]
        absent_T = (expected_TS[:, slots] & ~present) @ level_S[slots]
        sums.append(values_TSF[:, slots].sum(axis=1))
        known.append((absent_T <= _ABSENT * usual_T) & present.any(axis=1))
    return np.stack(sums, axis=1), np.stack(known, axis=1)


def _censor(values_TSF: Floats, observed_TS: NDArray[np.bool_]) -> None:
    """Mark the unknown buckets after a series' first as sold out, in place, without demand."""
    begun_TS = np.cumsum(observed_TS, axis=0) > 0
    unknown_TS = begun_TS & ~observed_TS
    values_TSF[unknown_TS] = 0
    values_TSF[unknown_TS, STOCK] = 1
    values_TSF[unknown_TS, STOCKOUT_SHARE] = 1
