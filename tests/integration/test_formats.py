"""A worker on an Avro topic: features equal a recount, dead letters have no personal data."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from tests.support.deployments import PARTITIONS, Deployment
from tests.support.stack import (
    judged,
    produce,
    read_topic,
    real_lines,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
LINE: dict[str, Any] = {
    "type": "record",
    "name": "shop.Line",
    "fields": [
        {"name": "quantity", "type": "int"},
        {"name": "customer_id", "type": ["null", "string"]},
        {"name": "sku", "type": "string"},
        {"name": "unit_price", "type": "double"},
        {"name": "ts", "type": MILLIS},
        {"name": "event_id", "type": "string"},
        {"name": "country", "type": "string"},
    ],
}
PARSED = fastavro.parse_schema(LINE)


def avro(line: dict[str, Any], *, schema_id: int = 7) -> bytes:
    """A line in Confluent's wire format."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, PARSED, line)
    return b"\0" + schema_id.to_bytes(4) + body.getvalue()


@pytest.fixture
def deployment_settings(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Avro with a file of schemas."""
    schemas = tmp_path / "schemas.json"
    schemas.write_text(json.dumps({"7": LINE}))
    return {
        "window": {"allowed_lateness": "7d"},
        "ingest": {"format": "avro", "schema_registry": str(schemas)},
    }


def test_avro_lines_count_as_json_lines_do(deployment: Deployment, redis_client: Redis) -> None:
    """Real lines as Avro with bad ones among them: each gets its verdict."""
    lines = real_lines(5_000).with_columns(customer_id=pl.lit("secret-person"))
    rows = [line | {"country": "UK"} for line in lines.iter_rows(named=True)]
    records: list[tuple[bytes | None, bytes | None]] = [
        (line["sku"].encode(), avro(line)) for line in rows
    ]
    sku, fine = rows[0]["sku"].encode(), avro(rows[0])
    bad = [
        ("not_avro", json.dumps({"customer_id": "secret-person"}).encode()),
        ("unknown_schema", avro(rows[0], schema_id=8)),
        ("malformed_avro", fine[:-4]),
        ("zero_quantity", avro(rows[0] | {"quantity": 0})),
    ]
    mixed = [*records[:100], *((sku, value) for _, value in bad), *records[100:]]
    total = produce(deployment.servers, "orders", mixed)
    worker = deployment.start()
    wait_until(lambda: judged(redis_client, PARTITIONS) == total, "all verdicts")
    counts = stored_counts(redis_client, PARTITIONS)
    assert (counts["counted"], counts["rejected"]) == (len(lines), len(bad))
    assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
        lines, bucket_ms=HOUR_MS
    )
    letters = [json.loads(record.value) for record in read_topic(deployment.servers, "dead-letter")]
    assert sorted(letter["reason"] for letter in letters) == sorted(r for r, _ in bad)
    assert all("secret-person" not in json.dumps(letter) for letter in letters)
    assert worker.stop() == 0
    assert "secret-person" not in worker.log.read_text()
