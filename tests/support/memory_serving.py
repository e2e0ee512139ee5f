"""A model server without a model, and a stored history without a store."""

from collections.abc import Iterator

import numpy as np

from model.contract import FEATURE_NAMES, QuantileForecast
from model.durations import HOUR_MS
from stream.state.history import StoredHistory
from stream.state.keys import Tag


class ScriptedServer:
    """A `BucketServer` that forecasts one unit, once from each new origin."""

    def __init__(self) -> None:
        self.model_id = "scripted"
        self.forgotten: list[Tag] = []
        self._through_ms: dict[Tag, int] = {}

    def swap_in(self) -> bool:
        return False

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        if through_ms <= self._through_ms.get(tag, 0):
            return None
        self._through_ms[tag] = through_ms
        ones = np.ones((1, 2, 1), np.float32)
        return QuantileForecast(
            origin_ms=through_ms,
            bucket_ms=HOUR_MS,
            quantiles=(0.5,),
            units_SHQ=ones,
            cumulative_SHQ=np.cumsum(ones, axis=1),
            mean_SH=ones[..., 0],
            model_id=self.model_id,
        )

    def forget(self, tag: Tag) -> None:
        self.forgotten.append(tag)
        self._through_ms.pop(tag, None)


class MemoryHistory:
    """A `HistoryReader` of closed hours of one series, in one portion."""

    def __init__(self, *, buckets: int) -> None:
        rng = np.random.default_rng(7)
        self.values_TSF = np.zeros((buckets, 1, len(FEATURE_NAMES)), np.float32)
        self.values_TSF[:, :, 0] = rng.poisson(3, (buckets, 1))

    def __call__(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        first = (from_ms or 0) // HOUR_MS
        last = (
            len(self.values_TSF) if to_ms is None else min(len(self.values_TSF), to_ms // HOUR_MS)
        )
        if last > first:
            values_TSF = self.values_TSF[first:last]
            yield StoredHistory(first * HOUR_MS, last * HOUR_MS, ["A"], values_TSF, is_last=True)
