"""One reader for all requests, used by one at a time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from stream.readside.reader import Reader
from stream.readside.series_answers import Age

_FRESH_S: Final = 0.1


class SharedReader:
    """Hands the reader to one request at a time, refreshed at most ten times a second."""

    def __init__(self, redis: Any) -> None:
        self._reader = Reader(redis)
        self._lock = threading.Lock()
        self._looked_s = float("-inf")

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """The reader, fresh. Raises ServiceUnavailable when the store does not answer."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s >= _FRESH_S:
                self._looked_s = float("-inf")  # a look that fails is taken again
                self._reader.refresh()
                self._looked_s = now_s
            yield self._reader


def age_fields(age: Age) -> dict[str, Any]:
    """The two fields every answer about a series carries.

    >>> age_fields(Age(12, stale=False))
    {'age_ms': 12, 'stale': False}
    """
    return {"age_ms": age.age_ms, "stale": age.stale}
