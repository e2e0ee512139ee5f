"""Base class of the decoders of single input topics, with their common checks.

It checks the size, key and location of every record; the subclasses are in the modules of the
topics (`stream/decoding/events.py`, `catalog.py`, …).

The rules for a record's fields are in `stream.decoding.fields`.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from stream.decoding.fields import series_id
from stream.decoding.formats import Format, JsonFormat
from stream.errors import UnreadableEvent
from stream.kafka.reading.inflation import Unreadable

S = TypeVar("S")

#: Key, SKU and location of a record.
Triple = tuple[bytes | None, str, str | None]


class InputDecoder(Generic[S]):
    """Decoder of one input topic into structs of `shape`.

    `source` is the format of the records, by default JSON. An empty `locations` accepts all.
    """

    shape: type[S]

    def __init__(
        self,
        *,
        locations: tuple[str, ...] = (),
        max_value_bytes: int = 262_144,
        source: Format | None = None,
    ) -> None:
        self._decode: Callable[[bytes], S] = (source or JsonFormat()).decoder(self.shape)
        self._locations = frozenset(locations)
        self._max_value_bytes = max_value_bytes
        #: Verified keys, SKUs and locations → series id.
        self._verified: dict[Triple, str] = {}

    def _read_one(self, value: bytes | None) -> S:
        """Return the struct of a value. Raises UnreadableEvent or the format's own errors."""
        return self._decode(require_value(value, max_bytes=self._max_value_bytes))

    def _series_id(self, triple: Triple) -> str:
        """Return the series id of a key, SKU and location. Raises UnreadableEvent."""
        key, sku, location = triple
        name = series_id(sku, location)
        require_same(require_key(key, "SKU"), sku, "SKU")
        self._require_location(location)
        return name

    def _require_location(self, location: str | None) -> None:
        if self._locations and location is not None and location not in self._locations:
            raise UnreadableEvent(
                "unknown_location", f"location {location!r} is not in ingest.locations"
            )


def require_value(value: bytes | None, *, max_bytes: int) -> bytes:
    """Return the value of a record. Raises UnreadableEvent if it is missing or too large.

    >>> require_value(b"abc", max_bytes=2)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: too_large: 3 bytes exceed ingest.max_value_bytes, which is 2
    """
    if value is None:
        raise UnreadableEvent("null_value", "the record has no value")
    if isinstance(value, Unreadable):
        raise UnreadableEvent("unreadable_batch", value.detail)
    if len(value) > max_bytes:
        raise UnreadableEvent(
            "too_large", f"{len(value)} bytes exceed ingest.max_value_bytes, which is {max_bytes}"
        )
    return value


def require_key(key: bytes | None, field: str) -> bytes:
    """Return the key of a record, which repeats its `field`. Raises UnreadableEvent if missing.

    >>> require_key(None, "SKU")
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: null_key: the key must be the SKU in UTF-8
    """
    if key is None:
        raise UnreadableEvent("null_key", f"the key must be the {field} in UTF-8")
    return key


def require_same(key: bytes, name: str, field: str) -> None:
    """Raise UnreadableEvent if the key is not `name`, the value of the record's `field`.

    >>> require_same(b"A", "B", "SKU")
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: key_mismatch: key b'A' is not the SKU 'B'
    """
    if key != name.encode():
        raise UnreadableEvent("key_mismatch", f"key {key[:60]!r} is not the {field} {name[:60]!r}")
