"""Which records of an input topic are let in: size, key and location, one rule for every topic.

Stands under the decoders of `stream/decoding/events.py`, `stream/decoding/inventory.py` and
`stream/decoding/plans.py`. What the fields of a record may hold is said in
`stream/decoding/fields.py`.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from stream.decoding.fields import series_id
from stream.decoding.formats import Format, JsonFormat
from stream.errors import UnreadableEvent

S = TypeVar("S")

#: Key, SKU and location of a record.
Triple = tuple[bytes | None, str, str | None]


class InputDecoder(Generic[S]):
    """Decoder of one input topic into structs of `shape`, and what it refuses unread.

    `source` says how bytes become structs (`stream/decoding/formats.py`); by default they are JSON.
    An empty `locations` admits every one.
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
        #: What was verified: a key, SKU and location met again cost a lookup.
        self._known: dict[Triple, str] = {}

    def _read_one(self, value: bytes | None) -> S:
        """The struct of a value. Raises UnreadableEvent, or what the format raises."""
        return self._decode(admissible(value, max_bytes=self._max_value_bytes))

    def _name(self, triple: Triple) -> str:
        """Series id of a record with this key, SKU and location. Raises UnreadableEvent."""
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


def admissible(value: bytes | None, *, max_bytes: int) -> bytes:
    """The value of a record. Raises UnreadableEvent where there is none, or too much of it.

    >>> admissible(b"abc", max_bytes=2)
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: too_large: 3 bytes, at most 2 are read
    """
    if value is None:
        raise UnreadableEvent("null_value", "the record has no value")
    if len(value) > max_bytes:
        raise UnreadableEvent("too_large", f"{len(value)} bytes, at most {max_bytes} are read")
    return value


def require_key(key: bytes | None, field: str) -> bytes:
    """The key of a record, which repeats its `field`. Raises UnreadableEvent where it has none.

    >>> require_key(None, "SKU")
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: null_key: the key must be the SKU in UTF-8
    """
    if key is None:
        raise UnreadableEvent("null_key", f"the key must be the {field} in UTF-8")
    return key


def require_same(key: bytes, name: str, field: str) -> None:
    """Raise UnreadableEvent for a key that is not the record's `field`, which holds `name`.

    >>> require_same(b"A", "B", "SKU")
    Traceback (most recent call last):
        ...
    stream.errors.UnreadableEvent: key_mismatch: key b'A' is not the SKU 'B'
    """
    if key != name.encode():
        raise UnreadableEvent("key_mismatch", f"key {key[:60]!r} is not the {field} {name[:60]!r}")
