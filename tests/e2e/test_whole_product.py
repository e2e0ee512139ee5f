"""The main job: 200,000 real order lines through the real stack, seen in a real browser."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.jobs.files.sample import sample_catalog, sample_orders
from stream.processes.ports import free_port
from stream.settings import Settings, child_environment
from tests.support.pages import column, wait_for
from tests.support.services import running_broker, settings_for
from tests.support.stack import (
    SURGECAST,
    read_topic,
    recount,
    statistics,
    stored_counts,
    stored_features,
    wait_until,
)

pytestmark = pytest.mark.e2e

LINES = 200_000


@pytest.fixture(scope="module")
def lines() -> pl.DataFrame:
    """The last 200,000 real order lines of the sample."""
    return pl.read_parquet(sample_orders()).sort("ts", "event_id").tail(LINES)


@pytest.fixture
def deployment(tmp_path: Path, valkey_url: str, redis_client: Redis) -> Iterator[Settings]:
    """A broker and a store that outlive `surgecast up`, and a free port for the page."""
    with running_broker("tansu", tmp_path) as broker:
        yield settings_for(
            broker,
            tmp_path,
            kafka={"session_timeout": "4s"},
            redis={"url": valkey_url},
            state={"retention": "400d"},
            dashboard={"port": free_port()},
            api={"port": free_port()},
        )


@pytest.mark.timeout(900)
def test_real_orders_become_exact_features_and_live_forecasts(
    deployment: Settings,
    redis_client: Redis,
    lines: pl.DataFrame,
    browser: Any,
    tmp_path: Path,
) -> None:
    """Every line counted, a forecast for every series, and a page that moves meanwhile."""
    orders = tmp_path / "orders.parquet"
    lines.write_parquet(orders)
    command = [
        str(SURGECAST), "up", "--replay", str(orders), "--catalog", str(sample_catalog()),
        "--speed", "max", "--until-end", "--json",
    ]  # fmt: skip
    log = (tmp_path / "up.log").open("wb")
    process = subprocess.Popen(
        command,
        env=child_environment(deployment),
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        wait_until(lambda: bool(statistics(redis_client)), "a worker")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{deployment.dashboard.port}/live")
        wait_for(page, 'column("actuals", "start").length > 0', seconds=120)
        first = column(page, "actuals", "start")[-1]
        wait_for(page, 'column("actuals", "start").at(-1) > given', first, seconds=120)
        wait_for(page, 'column("fan", "median").length > 0', seconds=120)
        answer, _ = process.communicate(timeout=600)
    finally:
        process.terminate()
        process.communicate(timeout=60)
        log.close()
    assert process.returncode == 0, (tmp_path / "up.log").read_text()[-2_000:]

    summary = json.loads(answer)
    assert (summary["events_in"], summary["counted"]) == (LINES, LINES)
    assert summary["dead_lettered"] == summary["duplicate"] == 0
    partitions = deployment.kafka.partitions
    assert stored_counts(redis_client, partitions)["counted"] == LINES
    expected = recount(lines, bucket_ms=HOUR_MS)
    assert stored_features(redis_client, partitions, bucket_ms=HOUR_MS) == expected

    servers = deployment.kafka.bootstrap_servers
    assert servers is not None
    forecasts = [json.loads(record.value) for record in read_topic(servers, "forecasts")]
    forecast_of = {forecast["series_id"]: forecast for forecast in forecasts}
    skus = set(lines["sku"].unique())
    assert skus <= forecast_of.keys()
    assert "total" in forecast_of
    assert any(name.startswith("category:") for name in forecast_of)
    horizon, quantiles = deployment.model.horizon, len(deployment.model.quantiles)
    for forecast in forecast_of.values():
        units = np.array(forecast["units"])
        cumulative = np.array(forecast["cumulative_units"])
        assert units.shape == cumulative.shape == (horizon, quantiles)
        assert (units >= 0).all()
        assert (np.diff(units, axis=1) >= 0).all()
        assert (np.diff(cumulative, axis=1) >= 0).all()
        assert (np.diff(cumulative, axis=0) >= 0).all()
