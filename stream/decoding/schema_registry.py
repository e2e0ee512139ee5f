"""Avro schemas of input records, from a Confluent-style registry or a local file.

Calls block, so run them in a thread; nothing is cached here. Secrets appear only in the request's
header.
"""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from stream.errors import ServiceUnavailable, UnreadableEvent, UsageError

if TYPE_CHECKING:
    from stream.settings import IngestSettings

TIMEOUT_S: Final = 10.0
#: Limits on the references of a schema, which may have references too, even circular ones.
_MAX_REFERENCES: Final = 64
_MAX_DEPTH: Final = 8


class SchemaRegistry(Protocol):
    """Writer schemas by id."""

    def fetch(self, schema_id: int) -> list[Any]:
        """Return the schemas that it references, then the schema, as parsed JSON.

        Raises UnreadableEvent (`unknown_schema`) if there is no usable schema, ServiceUnavailable
        if the registry does not answer.
        """


class FileRegistry:
    """Schemas in a JSON file, ``{"7": {"type": "record", …}}``, read again at every fetch.

    The constructor reads it too, so a wrong path is found at the start. Raises UsageError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    def fetch(self, schema_id: int) -> list[Any]:
        """Return the schema of an id. Raises UnreadableEvent, UsageError."""
        found = self._read().get(str(schema_id))
        if found is None:
            raise UnreadableEvent("unknown_schema", f"schema {schema_id} is not in {self._path}")
        return [json.loads(found) if isinstance(found, str) and found[:1] in '{["' else found]

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text())
        except OSError as error:
            raise UsageError(
                f"ingest.schema_registry {self._path}: {error.strerror}; write a JSON file, or a "
                "URL that begins with http:// or https://"
            ) from None
        except ValueError as error:
            raise UsageError(f"ingest.schema_registry {self._path} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise UsageError(
                f"ingest.schema_registry {self._path} is not a JSON object of schemas by id"
            )
        return document


class HttpRegistry:
    """A registry behind HTTP(S); user and password are part of the URL or separate arguments."""

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        cafile: Path | None = None,
    ) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        address = host if parts.port is None else f"{host}:{parts.port}"
        self._url = urlunsplit((parts.scheme, address, parts.path.rstrip("/"), "", ""))
        username, password = username or parts.username, password or parts.password
        self._authorization = None
        if username is not None:
            pair = f"{username}:{password or ''}".encode()
            self._authorization = "Basic " + base64.b64encode(pair).decode()
        self._context = None
        if parts.scheme == "https":
            try:
                self._context = ssl.create_default_context(cafile=cafile)
            except OSError as error:
                raise UsageError(f"ingest.schema_registry_cafile {cafile}: {error}") from None

    def fetch(self, schema_id: int) -> list[Any]:
        """Return a schema after those it references. Raises UnreadableEvent, ServiceUnavailable."""
        schemas: dict[str, Any] = {}
        self._add(schemas, f"/schemas/ids/{schema_id}", f"schema {schema_id}")
        return list(schemas.values())

    def _add(self, schemas: dict[str, Any], path: str, what: str, depth: int = 0) -> None:
        """Put the schema at a path, and before it those it refers to, into `schemas`."""
        if depth > _MAX_DEPTH or len(schemas) > _MAX_REFERENCES:
            raise UnreadableEvent("unknown_schema", f"{what} refers to too many others")
        answer = self._get(path, what)
        kind = answer.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise UnreadableEvent("unknown_schema", f"{what} is {kind}, not Avro")
        for reference in answer.get("references", ()):
            subject, version = reference["subject"], reference["version"]
            other = f"/subjects/{quote(subject, safe='')}/versions/{version}"
            if other in schemas:
                continue
            self._add(schemas, other, f"{subject} {version}, named by {what}", depth + 1)
        schemas[path] = json.loads(answer["schema"])

    def _get(self, path: str, what: str) -> Mapping[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the operator's http or https URL
            self._url + path, headers={"Accept": "application/vnd.schemaregistry.v1+json"}
        )
        if self._authorization is not None:  # not sent to the target of a redirect
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with urllib.request.urlopen(  # noqa: S310 - as above
                request, timeout=TIMEOUT_S, context=self._context
            ) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise UnreadableEvent(
                    "unknown_schema", f"{what} is not in the registry {self._url}"
                ) from None
            raise ServiceUnavailable(
                f"schema registry {self._url} answered {error.code} {error.reason} for {what}"
            ) from None
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(
                f"schema registry {self._url} does not answer: {error}"
            ) from None
        if not isinstance(answer, dict) or "schema" not in answer:
            raise ServiceUnavailable(
                f"{self._url} is not a schema registry: no schema in its answer"
            )
        return answer


def open_registry(settings: "IngestSettings") -> SchemaRegistry:
    """Return the registry of the settings. Raises UsageError if it cannot be used."""
    name = settings.schema_registry or ""
    if "://" not in name:
        return FileRegistry(Path(name))
    if not name.startswith(("http://", "https://")):
        raise UsageError("ingest.schema_registry is neither an http or https URL nor a file")
    password = settings.schema_registry_password
    return HttpRegistry(
        name,
        username=settings.schema_registry_username,
        password=password.get_secret_value() if password else None,
        cafile=settings.schema_registry_cafile,
    )
