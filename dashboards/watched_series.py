"""The series that sessions watch: history kept in memory, extended by what has closed since."""

from collections.abc import Iterable

import numpy as np

from dashboards.snapshot import SeriesView, kept_ms
from stream.readside.reader import Reader
from stream.readside.series_answers import Age


class Views:
    """Views of the watched series; what nobody watches any more is dropped."""

    def __init__(self) -> None:
        self._held: dict[str, SeriesView] = {}

    def read(self, reader: Reader, watched: Iterable[str]) -> dict[str, SeriesView]:
        """Views of those watched series that exist, up to date with the store."""
        known = [series_id for series_id in watched if reader.find(series_id)]
        live = reader.live(known)
        self._held = {
            series_id: self._extended(reader, series_id)._replace(
                opened=tuple(opened), forecast=forecast, age=reader.age(series_id)
            )
            for series_id, (opened, forecast) in live.items()
        }
        return dict(self._held)

    def _extended(self, reader: Reader, series_id: str) -> SeriesView:
        """The view with the buckets that have closed since; only those are read."""
        info, progress = reader.info(), reader.progress(series_id)
        end_ms = progress.closed_through_ms if progress else 0
        oldest_ms = end_ms - kept_ms(info.bucket_ms if info else 1)
        held = self._held.get(series_id)
        if held is None or not oldest_ms <= held.closed_through_ms <= end_ms:
            held = None
            from_ms = oldest_ms
        else:
            from_ms = held.closed_through_ms
            if from_ms == end_ms:
                return held
        read = reader.history(series_id, from_ms, end_ms)
        ahead_T3 = reader.ahead(series_id, from_ms, end_ms)
        start_T, values_TF = read.start_T, read.values_TF
        if held is not None:
            keep = held.start_T >= oldest_ms
            start_T = np.concatenate([held.start_T[keep], start_T])
            values_TF = np.concatenate([held.values_TF[keep], values_TF])
            ahead_T3 = np.concatenate([held.ahead_T3[keep], ahead_T3])
        return SeriesView(
            series_id=series_id,
            category=reader.category_of(series_id),
            start_T=start_T,
            values_TF=values_TF,
            ahead_T3=ahead_T3,
            closed_through_ms=end_ms,
            opened=(),
            forecast=None,
            age=Age(None, stale=True),
        )
