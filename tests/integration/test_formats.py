"""A worker on an Avro topic: the features are those of a recount, and letters hide people."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.jobs.files.sample import sample_orders
from stream.settings import Settings
from tests.support.services import running_broker, settings_for
from tests.support.stack import (
    WorkerProcess,
    produce,
    read_topic,
    recount,
    stored_counts,
    stored_features,
    wait_until,
)

pytestmark = pytest.mark.integration

PARTITIONS = 4
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
def deployment(tmp_path: Path, redis_client: Redis, valkey_url: str) -> Iterator[Settings]:
    """A broker, an empty store, and a file of schemas."""
    schemas = tmp_path / "schemas.json"
    schemas.write_text(json.dumps({"7": LINE}))
    with running_broker("tansu", tmp_path) as broker:
        yield settings_for(
            broker,
            tmp_path,
            kafka={"partitions": PARTITIONS, "session_timeout": "6s"},
            redis={"url": valkey_url},
            window={"idle_timeout": "2s", "dedup": "7d", "allowed_lateness": "7d"},
            state={"retention": "400d"},
            ingest={"format": "avro", "schema_registry": str(schemas)},
        )


def test_avro_lines_count_as_json_lines_do(
    deployment: Settings, redis_client: Redis, tmp_path: Path
) -> None:
    """Real lines as Avro, with bad ones among them: each has its verdict."""
    orders = pl.read_parquet(sample_orders())
    lines = orders.filter(pl.col("ts") >= 1_317_600_000_000).sort("ts", "event_id").head(5_000)
    lines = lines.with_columns(customer_id=pl.lit("secret-person"))
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
    servers = deployment.kafka.bootstrap_servers or ""
    mixed = [*records[:100], *((sku, value) for _, value in bad), *records[100:]]
    total = produce(servers, "orders", mixed)
    worker = WorkerProcess(deployment, tmp_path / "worker.log")
    try:
        wait_until(
            lambda: sum(stored_counts(redis_client, PARTITIONS).values()) == total, "all verdicts"
        )
        counts = stored_counts(redis_client, PARTITIONS)
        assert (counts["counted"], counts["rejected"]) == (len(lines), len(bad))
        assert stored_features(redis_client, PARTITIONS, bucket_ms=HOUR_MS) == recount(
            lines, bucket_ms=HOUR_MS
        )
        letters = [json.loads(record.value) for record in read_topic(servers, "dead-letter")]
        assert sorted(letter["reason"] for letter in letters) == sorted(r for r, _ in bad)
        assert all("secret-person" not in json.dumps(letter) for letter in letters)
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert "secret-person" not in (tmp_path / "worker.log").read_text()
