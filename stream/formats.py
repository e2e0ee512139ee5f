"""How the bytes of an input record become a struct: JSON, or Avro behind a schema registry.

Stands under `stream/codecs.py`, which knows columns and never the format. A format also says what
of a refused record may go into a dead letter: people's ids are found, and replaced, in text only.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from stream.columns import Refused
from stream.errors import UnreadableEvent, UsageError

if TYPE_CHECKING:
    from stream.settings import IngestSettings

S = TypeVar("S")

#: What a decoder may raise for a record; nesting without end is one way not to be JSON.
UNREADABLE = (UnreadableEvent, msgspec.MsgspecError, UnicodeError, RecursionError)


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


def withheld(value: bytes) -> bytes:
    """What a dead letter says in place of a record that may hide a person: size and digest."""
    note = f"{len(value)} bytes, not legible; sha256 {sha256(value).hexdigest()}"
    return msgspec.json.encode({"withheld": note})


def open_format(settings: "IngestSettings") -> Format:
    """The format the settings name. Raises UsageError where Avro has no registry to go by."""
    if settings.format == "json":
        return JsonFormat()
    from stream.avro import AvroFormat
    from stream.schema_registry import open_registry

    if settings.schema_registry is None:
        raise UsageError(
            "ingest.format is avro: set SURGECAST_INGEST__SCHEMA_REGISTRY to the registry's URL, "
            "or to a JSON file of schemas by id"
        )
    return AvroFormat(open_registry(settings))


def schema_reason(message: str) -> str:
    """Dead-letter reason of a msgspec validation message.

    >>> schema_reason("Object missing required field `sku`")
    'missing_field'
    >>> schema_reason("Expected `int`, got `str` - at `$.quantity`")
    'wrong_type'
    """
    if "missing required field" in message:
        return "missing_field"
    if "Invalid enum value" in message:
        return "unknown_action"
    if "out of range" in message:
        return "out_of_range"
    return "wrong_type"


def unreadable(error: Exception) -> UnreadableEvent:
    """Why a record could not be read, of any error a decoder raises.

    >>> unreadable(msgspec.DecodeError("Input data was truncated")).reason
    'malformed_json'
    """
    if isinstance(error, UnreadableEvent):
        return error
    if isinstance(error, msgspec.ValidationError):
        return UnreadableEvent(schema_reason(str(error)), str(error))
    return UnreadableEvent("malformed_json", str(error))


def refusal(position: int, error: Exception) -> Refused:
    """The record at a position of its batch, refused for any error a decoder raises.

    >>> refusal(3, msgspec.DecodeError("Input data was truncated"))
    Refused(position=3, reason='malformed_json', detail='Input data was truncated')
    """
    fault = unreadable(error)
    return Refused(position, fault.reason, fault.detail)
