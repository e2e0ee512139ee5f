"""Synthetic shops read from their first bucket to their last, chunk by chunk, several at once.

The statistics of all shops of a fleet are carried together, which costs hardly more than those of
one; each shop then gives the chunks of its own updates. A walk begins with empty states, so the
network learns the first days of a series as well as its later years.

Axes: T = buckets, S = series of a shop, N = series of a fleet, L = buckets of a chunk, K = carried
statistics.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from model.config import ModelConfig
from model.durations import DAY_MS, HOUR_MS, MINUTE_MS, MONTH_MS, WEEK_MS
from model.inputs.carried_statistics import UNITS
from model.inputs.seasons.calendar import calendar_features
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import new_carried
from model.networks.base import State
from model.pretraining.disturbances import disturbed
from model.pretraining.synthetic.shop import synthetic_shop
from model.time_zones import UTC_ZONE
from model.training.dataset import Chunk, TrainingSeries, carry_over, levels, plans_of

_CHUNK: Final = 64
_SHOPS: Final = 6
_MIN_SERIES: Final = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """Bucket width and horizon of some shops, their size, and their share of all fleets."""

    bucket_ms: int
    horizon: int
    buckets: int
    series: int
    share: float


KINDS: Final = (
    Kind(DAY_MS, 28, 1_100, 96, 0.34),
    Kind(DAY_MS, 28, 2_600, 64, 0.06),
    Kind(DAY_MS, 14, 500, 128, 0.08),
    Kind(HOUR_MS, 48, 24 * 7 * 24, 96, 0.22),
    Kind(HOUR_MS, 168, 24 * 7 * 40, 64, 0.10),
    Kind(WEEK_MS, 8, 230, 256, 0.09),
    Kind(MONTH_MS, 12, 96, 256, 0.05),
    Kind(15 * MINUTE_MS, 48, 96 * 7 * 8, 64, 0.03),
    Kind(MINUTE_MS, 60, 1_440 * 4, 64, 0.03),
)


class Walk:
    """One shop, its position and the network's state there."""

    def __init__(self, base: ModelConfig, kind: Kind, seed: int) -> None:
        shop = synthetic_shop(
            bucket_ms=kind.bucket_ms, buckets=kind.buckets, series=kind.series, seed=seed
        )
        shop = disturbed(shop, seed)
        history = shop.history
        self.config = at_width(base, kind.bucket_ms, kind.horizon, shop.country)
        units_TS = torch.from_numpy(history.values_TSF[:, :, UNITS])
        sold_S = torch.nonzero(units_TS.sum(dim=0) > 0)[:, 0]
        starts_T = history.start_ms + kind.bucket_ms * np.arange(kind.buckets, dtype=np.int64)
        calendar_TC = calendar_features(
            starts_T, bucket_ms=kind.bucket_ms, country=self.config.holidays_country
        )
        size = sold_S.numel()
        self.picked = TrainingSeries(
            values_TSF=torch.from_numpy(history.values_TSF)[:, sold_S].contiguous(),
            start_ms=history.start_ms,
            config=self.config,
            end=kind.buckets,
            every=_CHUNK,
            index_S=sold_S.numpy(),
            weight_S=np.full(size, 1.0 / max(size, 1)),
            level_S=levels(units_TS[:, sold_S]),
            grid_GSK=torch.zeros(0, size, 0),
            calendar_TC=torch.from_numpy(calendar_TC),
            plans_TSP=plans_of(history, self.config, sold_S.numpy()),
        )
        self.size = size
        self.state: State | None = None

    def chunk(self, first: int, carried_LSK: Tensor) -> Chunk:
        """The chunk from bucket `first` on, with its statistics."""
        return self.picked.chunk(
            torch.arange(self.size)[None],
            carried_LSK[-1],
            np.array([first]),
            length=_CHUNK,
            end=self.picked.end,
            carried_LNK=carried_LSK,
        )


class Fleet:
    """Shops of one kind that walk together."""

    def __init__(self, base: ModelConfig, kind: Kind, rng: np.random.Generator) -> None:
        self.kind = kind
        self.walks: list[Walk] = []
        while len(self.walks) < _SHOPS:
            walk = Walk(base, kind, int(rng.integers(2**31)))
            if walk.size >= _MIN_SERIES:
                self.walks.append(walk)
        self.config = self.walks[0].config
        self._stats_NK = new_carried(sum(walk.size for walk in self.walks), self.config)
        self._first = 0
        self._waiting: list[tuple[Walk, Chunk]] = []
        self._rng = rng

    @property
    def over(self) -> bool:
        """True at the end of the shops."""
        return not self._waiting and self._first + _CHUNK >= self.kind.buckets

    def next(self) -> tuple[Walk, Chunk]:
        """A shop and its next chunk; all shops are at the same bucket."""
        if not self._waiting:
            self._read()
        return self._waiting.pop()

    def _read(self) -> None:
        part = slice(self._first, self._first + _CHUNK)
        values_LNF = torch.cat([walk.picked.values_TSF[part] for walk in self.walks], dim=1)
        steps_L = self._first + torch.arange(_CHUNK)
        starts_LN = torch.cat(
            [
                (walk.picked.start_ms + self.kind.bucket_ms * steps_L)[:, None].expand(
                    -1, walk.size
                )
                for walk in self.walks
            ],
            dim=1,
        )
        phases = layout_of(self.kind.bucket_ms).buckets(starts_LN, None)
        phases = replace(phases, **self._own_days(starts_LN))
        carried_LNK = carry_over(self._stats_NK, values_LNF, phases, self.config)
        parts = torch.split(carried_LNK, [walk.size for walk in self.walks], dim=1)
        order = self._rng.permutation(len(self.walks))
        self._waiting = [
            (self.walks[place], self.walks[place].chunk(self._first, parts[place]))
            for place in order.tolist()
        ]
        self._first += _CHUNK

    def _own_days(self, starts_LN: Tensor) -> dict[str, Any]:
        """The holidays and special days of each shop's own country, as fields of the phases."""
        layout = layout_of(self.kind.bucket_ms)
        parts = torch.split(starts_LN, [walk.size for walk in self.walks], dim=1)
        own = [
            layout.buckets(part_LS, walk.config.holidays_country)
            for walk, part_LS in zip(self.walks, parts, strict=True)
        ]
        holiday = torch.cat([part.holiday for part in own], dim=1)
        special = torch.cat([part.special for part in own], dim=1)
        return {
            "holiday": holiday,
            "special": special,
            "holiday_T": holiday.any(dim=1).tolist(),
            "special_T": (special >= 0).any(dim=1).tolist(),
        }


def at_width(
    base: ModelConfig, bucket_ms: int, horizon: int, country: str | None, timezone: str = UTC_ZONE
) -> ModelConfig:
    """The configuration of the same network at another bucket width and horizon."""
    values = base.as_dict()
    values |= {"bucket_ms": bucket_ms, "horizon": horizon}
    values |= {"holidays_country": country, "timezone": timezone}
    return ModelConfig.from_dict(values)
