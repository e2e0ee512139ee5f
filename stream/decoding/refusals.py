"""Why a record is refused: reasons, details, and what of it a dead letter may show."""

from dataclasses import dataclass
from hashlib import sha256

import msgspec

from stream.errors import UnreadableEvent


@dataclass(slots=True)
class Refused:
    """A record that is not counted: its place in the batch, and why."""

    position: int
    reason: str
    detail: str


#: What a decoder may raise for a record; nesting without end is one way not to be JSON.
UNREADABLE = (UnreadableEvent, msgspec.MsgspecError, UnicodeError, RecursionError)


def withheld(value: bytes) -> bytes:
    """What a dead letter says in place of a record that may hide a person: size and digest."""
    note = f"{len(value)} bytes, not legible; sha256 {sha256(value).hexdigest()}"
    return msgspec.json.encode({"withheld": note})


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
