"""Keeps the history of watched series in memory and reads only newly closed buckets."""

from collections.abc import Iterable

import numpy as np

from dashboards.snapshot import SeriesView, history_ms
from stream.readside.reader import Reader
from stream.readside.series_answers import Age


class WatchedSeries:
    """Views of the watched series; a series that is no longer watched is dropped."""

    def __init__(self) -> None:
        self._views: dict[str, SeriesView] = {}

    def read(self, reader: Reader, watched: Iterable[str]) -> dict[str, SeriesView]:
        """Return up-to-date views of the watched series that exist."""
        known = [series_id for series_id in watched if reader.find(series_id)]
        live = reader.live(known)
        self._views = {
            series_id: self._extended(reader, series_id)._replace(
                open_buckets=tuple(open_buckets), forecast=forecast, age=reader.age(series_id)
            )
            for series_id, (open_buckets, forecast) in live.items()
        }
        return dict(self._views)

    def _extended(self, reader: Reader, series_id: str) -> SeriesView:
        """Return the view extended by newly closed buckets; only those are read."""
        info, progress = reader.info(), reader.progress(series_id)
        end_ms = progress.closed_through_ms if progress else 0
        oldest_ms = end_ms - history_ms(info.bucket_ms if info else 1)
        cached = self._views.get(series_id)
        if cached is None or not oldest_ms <= cached.closed_through_ms <= end_ms:
            cached = None
            from_ms = oldest_ms
        else:
            from_ms = cached.closed_through_ms
            if from_ms == end_ms:
                return cached
        history = reader.history(series_id, from_ms, end_ms)
        ahead_T3 = reader.ahead(series_id, from_ms, end_ms)
        start_T, values_TF = history.start_T, history.values_TF
        if cached is not None:
            recent = cached.start_T >= oldest_ms
            start_T = np.concatenate([cached.start_T[recent], start_T])
            values_TF = np.concatenate([cached.values_TF[recent], values_TF])
            ahead_T3 = np.concatenate([cached.ahead_T3[recent], ahead_T3])
        return SeriesView(
            series_id=series_id,
            category=reader.category_of(series_id),
            start_T=start_T,
            values_TF=values_TF,
            ahead_T3=ahead_T3,
            closed_through_ms=end_ms,
            open_buckets=(),
            forecast=None,
            age=Age(None, stale=True),
        )
