"""How the bytes of an input record become a struct: JSON, or Avro behind a schema registry.

Stands under `stream/decoding/events.py`, which knows columns and never the format. A format also
says what of a refused record may go into a dead letter: people's ids are found, and replaced, in
text only.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from stream.decoding.refusals import withheld
from stream.errors import UsageError

if TYPE_CHECKING:
    from stream.settings import IngestSettings

S = TypeVar("S")


class Format(Protocol):
    """A format of input records."""

    async def prepare(self, records: Iterable[Any]) -> None:
        """Get what decoding the values of these records needs; waits until it is there."""

    def decoder(self, shape: type[S]) -> Callable[[bytes], S]:
        """Decoder of structs of one shape.

        It raises UnreadableEvent, or msgspec's errors where the format is msgspec's own.
        """

    def legible(self, value: bytes | None) -> bytes | None:
        """The record as text in which people's ids can be found, or a note in its place."""


class JsonFormat:
    """One JSON object a record."""

    async def prepare(self, records: Iterable[Any]) -> None:
        """Nothing is needed from elsewhere; the records are not even looked at."""

    def decoder(self, shape: type[S]) -> Callable[[bytes], S]:
        """Decoder of structs of one shape; raises msgspec's errors."""
        return msgspec.json.Decoder(shape).decode

    def legible(self, value: bytes | None) -> bytes | None:
        """The record itself, unless it is binary.

        >>> JsonFormat().legible(b'{"sku": 1}')
        b'{"sku": 1}'
        >>> JsonFormat().legible(bytes(10))[:34]
        b'{"withheld":"10 bytes, not legible'
        """
        return withheld(value) if value is not None and value[:1] == b"\0" else value


def open_format(settings: "IngestSettings") -> Format:
    """The format the settings name. Raises UsageError where Avro has no registry to go by."""
    if settings.format == "json":
        return JsonFormat()
    from stream.decoding.avro import AvroFormat
    from stream.decoding.schema_registry import open_registry

    if settings.schema_registry is None:
        raise UsageError(
            "ingest.format is avro: set SURGECAST_INGEST__SCHEMA_REGISTRY to the registry's URL, "
            "or to a JSON file of schemas by id"
        )
    return AvroFormat(open_registry(settings))
