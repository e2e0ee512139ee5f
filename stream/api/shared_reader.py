"""One reader for all requests, guarded by a lock."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from stream.errors import ServiceUnavailable
from stream.readside.reader import Reader
from stream.readside.series_answers import Age

_MAX_AGE_S: Final = 0.1
#: A store that did not answer is not asked again before this.
_RETRY_S: Final = 0.5


class SharedReader:
    """Lends the reader to one request at a time; refreshes it at most ten times a second."""

    def __init__(self, redis: Any) -> None:
        self._reader = Reader(redis)
        self._lock = threading.Lock()
        self._refreshed_s = float("-inf")
        self._failure: ServiceUnavailable | None = None
        self._failed_s = float("-inf")

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Yield the refreshed reader. Raises ServiceUnavailable if the store does not answer."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._refreshed_s >= _MAX_AGE_S:
                self._refreshed_s = float("-inf")  # a failed refresh is repeated
                self._refresh(now_s)
                self._refreshed_s = now_s
            yield self._reader

    def _refresh(self, now_s: float) -> None:
        """Refresh; requests that waited meanwhile do not wait for a hanging store one by one."""
        if self._failure is not None and now_s - self._failed_s < _RETRY_S:
            raise ServiceUnavailable(str(self._failure))
        try:
            self._reader.refresh()
        except ServiceUnavailable as error:
            self._failure, self._failed_s = error, time.monotonic()
            raise
        self._failure = None


def age_fields(age: Age) -> dict[str, Any]:
    """Return the age fields of every response about a series.

    >>> age_fields(Age(12, stale=False))
    {'age_ms': 12, 'stale': False}
    """
    return {"age_ms": age.age_ms, "stale": age.stale}
