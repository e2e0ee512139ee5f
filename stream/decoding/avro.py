"""Avro in Confluent's wire format, decoded to the same structs as JSON.

A record is a zero byte, the writer schema's id (4 bytes, big-endian) and Avro binary. It is read
with the writer's schema and matched to our shapes by field name, by the rules of JSON: fields in
any order, unknown ones ignored, a nullable union is an optional field. Logical timestamps become
ms. `prepare` fetches the schemas of a batch, so decoding never waits; while the registry is
unavailable, the input waits and no record is refused.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, Final, TypeVar

import fastavro
import msgspec
import structlog
from fastavro.schema import SchemaParseException, UnknownType

from stream.decoding.refusals import unreadable, withheld
from stream.decoding.schema_registry import SchemaRegistry
from stream.errors import ServiceUnavailable, UnreadableEvent

S = TypeVar("S")
Schema = Any
#: Least bytes of a value of a schema, and the number of values in it.
Extent = tuple[int, int]

log = structlog.get_logger(__name__)

HEADER_BYTES: Final = 5
#: Time until an unknown schema id is requested again.
RETRY_UNKNOWN_S: Final = 30.0
RETRY_S: Final = 1.0
#: Logical types that are read as their plain values: whole milliseconds, text.
_PLAIN: Final = {("long", "timestamp-millis"), ("string", "uuid")}
#: Values of one record at most, without those of arrays and maps, each of which takes bytes.
MAX_VALUES: Final = 10_000
#: All time fields of the input records.
_TIMES: Final = ("ts", "launched_at", "start", "end")
#: Errors of fastavro for bytes that do not match the schema.
_BROKEN: Final = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip


class AvroFormat:
    """Avro records with writer schemas from `registry`; `clock_s` is a monotonic clock."""

    def __init__(
        self, registry: SchemaRegistry, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._clock_s = clock_s
        self._schemas: dict[int, Schema] = {}
        self._unknown: dict[int, tuple[UnreadableEvent, float]] = {}

    async def prepare(self, records: Iterable[Any]) -> None:
        """Fetch the schemas of these records; wait while the registry does not answer."""
        headers = {record.value[:HEADER_BYTES] for record in records if record.value is not None}
        for header in headers:
            if len(header) != HEADER_BYTES or header[0]:
                continue
            schema_id = int.from_bytes(header[1:])
            if schema_id not in self._schemas and not self._recently_unknown(schema_id):
                await self._fetch(schema_id)

    def decoder(self, shape: type[S]) -> Callable[[bytes], S]:
        """Return a decoder of structs of one shape; it raises UnreadableEvent."""
        read, convert = self.read, msgspec.convert
        times = tuple(name for name in _TIMES if name == "ts" or hasattr(shape, name))

        def decode(value: bytes) -> S:
            document = read(value, times)
            try:
                return convert(document, shape)
            except msgspec.ValidationError as error:
                raise unreadable(error) from None

        return decode

    def read(self, value: bytes, times: Sequence[str] = _TIMES) -> Any:
        """Return the writer's record with its `times` in ms. Raises UnreadableEvent."""
        schema = self._schema(value)
        payload = BytesIO(value)
        payload.seek(HEADER_BYTES)
        try:
            document = fastavro.schemaless_reader(payload, schema, None)
        except _BROKEN as error:
            message = str(error) or type(error).__name__
            raise UnreadableEvent(
                "malformed_avro", f"does not match its schema: {message}"
            ) from None
        trailing = len(value) - payload.tell()
        if trailing:
            raise UnreadableEvent("malformed_avro", f"{trailing} bytes follow the record")
        if isinstance(document, dict):
            for name in times:
                if isinstance(document.get(name), datetime):
                    document[name] = _moment_ms(name, document[name])
        return document

    def readable(self, value: bytes | None) -> bytes | None:
        """Return the record as JSON; if it cannot be read, only its size and digest.

        A value that looks like JSON is returned unchanged.
        """
        if value is None or value[:1] == b"{":
            return value
        try:
            return msgspec.json.encode(self.read(value), enc_hook=str)
        except (UnreadableEvent, *_BROKEN):
            return withheld(value)

    def _schema(self, value: bytes) -> Schema:
        if value[:1] == b"{":
            raise UnreadableEvent("not_avro", "the record is JSON, but ingest.format is avro")
        if len(value) < HEADER_BYTES or value[0]:
            raise UnreadableEvent("malformed_avro", "no zero byte and schema id at the start")
        schema_id = int.from_bytes(value[1:HEADER_BYTES])
        schema = self._schemas.get(schema_id)
        if schema is None:
            fault = self._unknown.get(schema_id)
            if fault is not None:
                raise UnreadableEvent(fault[0].reason, fault[0].detail)
            raise UnreadableEvent("unknown_schema", f"schema {schema_id} was not fetched")
        return schema

    def _recently_unknown(self, schema_id: int) -> bool:
        found = self._unknown.get(schema_id)
        return found is not None and self._clock_s() - found[1] < RETRY_UNKNOWN_S

    async def _fetch(self, schema_id: int) -> None:
        while True:
            try:
                schemas = await asyncio.to_thread(self._registry.fetch, schema_id)
                self._schemas[schema_id] = parse_schemas(schema_id, schemas)
            except UnreadableEvent as error:
                self._unknown[schema_id] = (error, self._clock_s())
            except ServiceUnavailable as error:
                log.warning("schema_waits", schema_id=schema_id, reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            return


def parse_schemas(schema_id: int, schemas: Sequence[Any]) -> Schema:
    """Parse a schema, the last of `schemas`, after those it references.

    Raises UnreadableEvent (`unknown_schema`).
    """
    named: dict[str, Any] = {}
    try:
        for schema in schemas:
            parsed = fastavro.parse_schema(without_plain_types(schema), named_schemas=named)
        extent(parsed, named)
    except (SchemaParseException, UnknownType, *_BROKEN) as error:
        raise UnreadableEvent(
            "unknown_schema", f"schema {schema_id} cannot be used: {error}"
        ) from None
    return parsed


def without_plain_types(schema: Any) -> Any:
    """Return the schema without the logical types that are read as plain values.

    >>> without_plain_types({"type": "long", "logicalType": "timestamp-millis"})
    {'type': 'long'}
    """
    if isinstance(schema, list):
        return [without_plain_types(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    drop = isinstance(kind, str) and (kind, schema.get("logicalType")) in _PLAIN
    return {
        name: without_plain_types(part) if name in ("type", "fields", "items", "values") else part
        for name, part in schema.items()
        if not (drop and name == "logicalType")
    }


def _moment_ms(name: str, moment: datetime) -> int:
    if moment.tzinfo is None:
        raise UnreadableEvent(
            "invalid_timestamp", f"{name} {moment} is a local time without a UTC offset"
        )
    return round(moment.timestamp() * 1000)


def extent(
    schema: Any, named: Mapping[str, Any], known: dict[str, Extent | None] | None = None
) -> Extent:
    """Return the extent of a parsed schema; `named` are the schemas that it refers to by name.

    Raises ValueError for a schema of which a few bytes hold a value of any size: an array of nulls
    takes four bytes for a billion items, a record within itself one byte for each level.

    >>> extent({"type": "array", "items": "long"}, {})
    (1, 2)
    >>> extent({"type": "array", "items": "null"}, {})
    Traceback (most recent call last):
        ...
    ValueError: an array of items that take no bytes has no bounds
    """
    known = {} if known is None else known
    if isinstance(schema, list):  # of a union, the number of the branch takes a byte
        return 1, 1 + max((extent(branch, named, known)[1] for branch in schema), default=0)
    if isinstance(schema, str):
        return extent(named[schema], named, known) if schema in named else (schema != "null", 1)
    kind = schema["type"]
    if kind in ("array", "map"):
        least, values = extent(schema["items" if kind == "array" else "values"], named, known)
        if kind == "array" and not least:
            raise ValueError("an array of items that take no bytes has no bounds")
        return 1, _bounded(1 + values)
    if kind in ("record", "error"):
        return _of_record(schema, named, known)
    if kind in ("fixed", "enum"):
        return int(schema.get("size", 1)), 1
    return extent(kind, named, known)


def _of_record(
    schema: Mapping[str, Any], named: Mapping[str, Any], known: dict[str, Extent | None]
) -> Extent:
    name = schema["name"]
    if name not in known:
        known[name] = None  # until its fields are known
        parts = [extent(field["type"], named, known) for field in schema["fields"]]
        least, values = (sum(column) for column in zip(*parts, strict=True)) if parts else (0, 0)
        known[name] = least, _bounded(1 + values)
    found = known[name]
    if found is None:
        raise ValueError(f"{name} contains itself, which has no bounds")
    return found


def _bounded(values: int) -> int:
    if values > MAX_VALUES:
        raise ValueError(f"a record of {values} values exceeds the limit of {MAX_VALUES}")
    return values
