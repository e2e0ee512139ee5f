"""Keeps explanations of watched series; asks for one when a series has a newer forecast."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from dashboards.snapshot import SeriesView
from stream.errors import ServiceUnavailable
from stream.readside.explanations import ExplanationReads, SeriesExplanation, matched
from stream.readside.reader import Reader

#: Time between two requests for the same explanation.
_ASK_EVERY_S: Final = 2.0


class WatchedExplanations:
    """Newest explanations of the watched series; those no longer watched are dropped.

    While the newest forecast has none yet, that of the one before is kept: it says what it is of.
    """

    def __init__(self, redis: Any, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._reads = ExplanationReads(redis)
        self._clock_s = clock_s
        self._kept: dict[str, SeriesExplanation] = {}
        self._asked_s: dict[str, float] = {}

    def read(self, reader: Reader, views: Mapping[str, SeriesView]) -> dict[str, SeriesView]:
        """Return the views with their explanations. Raises ServiceUnavailable."""
        self._kept = {name: kept for name, kept in self._kept.items() if name in views}
        self._asked_s = {name: at for name, at in self._asked_s.items() if name in views}
        waiting = [name for name, view in views.items() if self._is_waiting(name, view)]
        slots = {name: slot for name in waiting if (slot := reader.find(name)) is not None}
        if slots:
            found = self._reads.read(list(slots.values()))
            for name, stored in zip(slots, found, strict=True):
                forecast = views[name].forecast
                explanation = None if forecast is None else matched(stored, forecast)
                if explanation is not None:
                    self._kept[name] = explanation
            now_s = self._clock_s()
            unanswered = [
                name
                for name in slots
                if self._is_waiting(name, views[name])
                and now_s - self._asked_s.get(name, -_ASK_EVERY_S) >= _ASK_EVERY_S
            ]
            if unanswered:
                with suppress(ServiceUnavailable):  # a store that only lets read serves the rest
                    self._reads.ask([slots[name] for name in unanswered])
                self._asked_s |= dict.fromkeys(unanswered, now_s)
        return {
            name: view._replace(explanation=self._kept.get(name)) for name, view in views.items()
        }

    def _is_waiting(self, name: str, view: SeriesView) -> bool:
        """True if the newest forecast of a series has no explanation yet."""
        forecast, kept = view.forecast, self._kept.get(name)
        if forecast is None:
            return False
        return kept is None or (
            (kept.forecast.origin_ms, kept.forecast.model_id, kept.forecast.emitted_ms)
            != (forecast.origin_ms, forecast.model_id, forecast.emitted_ms)
        )
