"""Formats of input records: JSON, or Avro with a schema registry.

A format decodes values into structs and turns a refused record into text for its dead letter, since
people's ids can be replaced only in text.
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
        """Fetch what decoding these records needs, and wait for it."""

    def decoder(self, shape: type[S]) -> Callable[[bytes], S]:
        """Return a decoder of structs of one shape.

        It raises UnreadableEvent, or msgspec's errors for a format of msgspec.
        """

    def readable(self, value: bytes | None) -> bytes | None:
        """Return the record as text in which people's ids can be found, or a note in its place."""


class JsonFormat:
    """One JSON object per record."""

    async def prepare(self, records: Iterable[Any]) -> None:
        """Do nothing; the records are not parsed yet."""

    def decoder(self, shape: type[S]) -> Callable[[bytes], S]:
        """Return a decoder of structs of one shape; it raises msgspec's errors."""
        return msgspec.json.Decoder(shape).decode

    def readable(self, value: bytes | None) -> bytes | None:
        """Return the record itself, unless it is binary.

        >>> JsonFormat().readable(b'{"sku": 1}')
        b'{"sku": 1}'
        >>> JsonFormat().readable(bytes(10))[:35]
        b'{"withheld":"10 bytes, not readable'
        """
        return withheld(value) if value is not None and value[:1] == b"\0" else value


def open_format(settings: "IngestSettings") -> Format:
    """Return the format of the settings. Raises UsageError for Avro without a registry."""
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
