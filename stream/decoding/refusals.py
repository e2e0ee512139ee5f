"""Refusals: the reason and detail of a record that is not counted."""

import re
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from stream.errors import UnreadableEvent


@dataclass(slots=True)
class Refused:
    """A refused record: its position in the batch, the reason and a detail."""

    position: int
    reason: str
    detail: str


#: Errors that a decoder may raise for a record; RecursionError for JSON nested too deeply.
UNREADABLE = (UnreadableEvent, msgspec.MsgspecError, UnicodeError, RecursionError)


def withheld(value: bytes) -> bytes:
    """Return the note that replaces a record which may contain people's ids: size and digest."""
    note = f"{len(value)} bytes, not readable; sha256 {sha256(value).hexdigest()}"
    return msgspec.json.encode({"withheld": note})


def schema_reason(message: str) -> str:
    """Return the dead-letter reason of a msgspec validation message.

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


def schema_detail(message: str) -> str:
    """Return a msgspec validation message without the value that it quotes.

    >>> schema_detail("Invalid enum value 'buy' - at `$.action`")
    'Invalid enum value - at `$.action`'
    """
    return re.sub(r""" ['"].*['"]""", "", message, flags=re.DOTALL)


def unreadable(error: Exception) -> UnreadableEvent:
    """Return any error of a decoder as an UnreadableEvent.

    >>> unreadable(msgspec.DecodeError("Input data was truncated")).reason
    'malformed_json'
    """
    if isinstance(error, UnreadableEvent):
        return error
    if isinstance(error, msgspec.ValidationError):
        return UnreadableEvent(schema_reason(str(error)), schema_detail(str(error)))
    return UnreadableEvent("malformed_json", str(error))


def refusal(position: int, error: Exception) -> Refused:
    """Return the refusal of the record at a position, from any error of a decoder.

    >>> refusal(3, msgspec.DecodeError("Input data was truncated"))
    Refused(position=3, reason='malformed_json', detail='Input data was truncated')
    """
    fault = unreadable(error)
    return Refused(position, fault.reason, fault.detail)
