"""Reads of the store for serving: closed buckets, plans, and the newest forecast.

Called from the serving threads, with a blocking client. Every read raises ServiceUnavailable when
the store does not answer.
"""

from collections.abc import Iterator, Sequence

from redis import Redis

from model.contract import QuantileForecast
from model.inputs.plans import Plans
from stream.serving.stored_plans import StoredPlans
from stream.state.forecasts import read_forecast
from stream.state.history import StoredHistory, read_history
from stream.state.keys import Tag
from stream.state.redis import translate_store_errors


class ServingReads:
    """Reads of one deployment's store."""

    def __init__(self, client: Redis, *, partitions: int, bucket_ms: int) -> None:
        self._client = client
        self._bucket_ms = bucket_ms
        self._plans = StoredPlans(client, partitions, bucket_ms=bucket_ms)

    def history(self, tag: Tag, from_ms: int | None, to_ms: int | None) -> Iterator[StoredHistory]:
        """Closed buckets of a partition or of the roll-ups, oldest first, in portions."""
        with translate_store_errors():
            yield from read_history(
                self._client, tag, bucket_ms=self._bucket_ms, from_ms=from_ms, to_ms=to_ms
            )

    def plans(self, tag: Tag, series: Sequence[str], start_ms: int, buckets: int) -> Plans | None:
        """Plans of series in `buckets` buckets from `start_ms` on; None if there are none."""
        with translate_store_errors():
            return self._plans(tag, series, start_ms, buckets)

    def forecast(self, tag: Tag) -> QuantileForecast | None:
        """The newest stored forecast of a partition; None before the first."""
        with translate_store_errors():
            return read_forecast(self._client, tag)
