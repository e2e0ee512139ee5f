"""Schemas over HTTP and from a file, with one kind of error for each fault."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stream.decoding.avro import parse_schemas
from stream.decoding.schema_registry import FileRegistry, HttpRegistry, open_registry
from stream.errors import ServiceUnavailable, UnreadableEvent, UsageError
from stream.settings import IngestSettings

MONEY = {"type": "record", "name": "shop.Money", "fields": [{"name": "ticks", "type": "long"}]}
LINE = {"type": "record", "name": "shop.Line", "fields": [{"name": "price", "type": "shop.Money"}]}
ANSWERS: dict[str, Any] = {
    "/schemas/ids/1": {"schema": json.dumps(MONEY)},
    "/schemas/ids/2": {
        "schema": json.dumps(LINE),
        "references": [{"name": "shop.Money", "subject": "shop/money", "version": 3}],
    },
    "/subjects/shop%2Fmoney/versions/3": {"schema": json.dumps(MONEY), "id": 1},
    "/schemas/ids/3": {"schema": "syntax", "schemaType": "PROTOBUF"},
    "/schemas/ids/4": {
        "schema": json.dumps(LINE),
        "references": [{"name": "a", "subject": "circle", "version": 1}],
    },
    "/subjects/circle/versions/1": {
        "schema": json.dumps(LINE),
        "references": [{"name": "a", "subject": "circle", "version": 1}],
    },
    "/schemas/ids/5": ["no registry"],
}


class Answer(BaseHTTPRequestHandler):
    """Answers as a registry does, to requests with the password."""

    def do_GET(self) -> None:
        status, body = 200, ANSWERS.get(self.path)
        if self.headers["Authorization"] != "Basic bWU6c2VjcmV0":
            status, body = 401, {"error_code": 401}
        elif body is None:
            status, body = 404, {"error_code": 40403, "message": "Schema not found"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Address of a registry."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_schema_is_returned_after_those_it_references(url: str) -> None:
    """Names must be defined before they are used."""
    schemas = HttpRegistry(url, username="me", password="secret").fetch(2)

    assert schemas == [MONEY, LINE]
    assert parse_schemas(2, schemas)["name"] == "shop.Line"


def test_user_and_password_may_be_part_of_the_url(url: str) -> None:
    registry = HttpRegistry(url.replace("http://", "http://me:secret@"))

    assert registry.fetch(1) == [MONEY]


@pytest.mark.parametrize("schema_id", [3, 4, 99])
def test_an_unusable_schema_is_unknown(url: str, schema_id: int) -> None:
    """Missing, of another kind, or circular: the record is refused and the input does not wait."""
    with pytest.raises(UnreadableEvent) as caught:
        HttpRegistry(url, username="me", password="secret").fetch(schema_id)
    assert caught.value.reason == "unknown_schema"


def test_a_denied_request_or_a_foreign_server_refuses_no_record(url: str) -> None:
    """The input waits, and no message shows the password."""
    for registry, schema_id in [
        (HttpRegistry(url, username="me", password="wrong-one"), 1),
        (HttpRegistry(url, username="me", password="secret"), 5),
        (HttpRegistry("http://me:secret@127.0.0.1:1"), 1),
    ]:
        with pytest.raises(ServiceUnavailable) as caught:
            registry.fetch(schema_id)
        assert "secret" not in str(caught.value)
        assert "wrong-one" not in str(caught.value)


def test_a_file_is_read_again_for_an_id_added_later(tmp_path: Path) -> None:
    """Schemas may be objects or text."""
    path = tmp_path / "schemas.json"
    path.write_text(json.dumps({"1": MONEY}))
    registry = FileRegistry(path)
    with pytest.raises(UnreadableEvent):
        registry.fetch(2)
    path.write_text(json.dumps({"1": MONEY, "2": json.dumps(MONEY)}))

    assert registry.fetch(1) == registry.fetch(2) == [MONEY]


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_an_unusable_file_is_an_error_at_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "schemas.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"schemas\.json"):
        open_registry(IngestSettings(schema_registry=str(path)))


def test_other_url_schemes_are_an_error() -> None:
    with pytest.raises(UsageError, match="http"):
        open_registry(IngestSettings(schema_registry="ftp://registry/x"))
