"""The whole product: 200,000 real order lines through every role, shown in a real browser."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis import Redis

from model.durations import HOUR_MS
from stream.jobs.files.sample import sample_catalog, sample_orders
from stream.processes.ports import free_port
from stream.settings import child_environment
from tests.support.deployments import SURGECAST, Deployment
from tests.support.pages import column, wait_for
from tests.support.stack import (
    read_topic,
    recount,
    statistics,
    stored_counts,
    stored_features,
    wait_until,
)

LINES = 200_000


@pytest.fixture(scope="module")
def lines() -> pl.DataFrame:
    """The last 200,000 real order lines of the sample."""
    return pl.read_parquet(sample_orders()).sort("ts", "event_id").tail(LINES)


@pytest.fixture
def deployment_settings() -> dict[str, dict[str, Any]]:
    """Free ports for the page and the API; no partition is ever idle."""
    return {
        "window": {"idle_timeout": "30s", "dedup": "15m"},
        "dashboard": {"port": free_port()},
        "api": {"port": free_port()},
    }


@pytest.mark.timeout(900)
def test_real_orders_become_exact_features_and_live_forecasts(
    deployment: Deployment,
    redis_client: Redis,
    lines: pl.DataFrame,
    browser: Any,
    tmp_path: Path,
) -> None:
    """Every line is counted, every series has a forecast, and the page moves meanwhile."""
    orders = tmp_path / "orders.parquet"
    lines.write_parquet(orders)
    command = [
        str(SURGECAST), "up", "--replay", str(orders), "--catalog", str(sample_catalog()),
        "--speed", "max", "--until-end", "--json",
    ]  # fmt: skip
    log = (tmp_path / "up.log").open("wb")
    process = subprocess.Popen(
        command,
        env=child_environment(deployment.settings),
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        wait_until(lambda: bool(statistics(redis_client)), "a worker")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{deployment.settings.dashboard.port}/live")
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
    partitions = deployment.partitions
    assert stored_counts(redis_client, partitions)["counted"] == LINES
    expected = recount(lines, bucket_ms=HOUR_MS)
    assert stored_features(redis_client, partitions, bucket_ms=HOUR_MS) == expected

    records = read_topic(deployment.servers, "forecasts")
    forecasts = [json.loads(record.value) for record in records]
    forecast_of = {forecast["series_id"]: forecast for forecast in forecasts}
    skus = set(lines["sku"].unique())
    assert skus <= forecast_of.keys()
    assert "total" in forecast_of
    assert any(name.startswith("category:") for name in forecast_of)
    model = deployment.settings.model
    horizon, quantiles = model.horizon, len(model.quantiles)
    for forecast in forecasts:
        units = np.array(forecast["units"])
        cumulative = np.array(forecast["cumulative_units"])
        assert units.shape == cumulative.shape == (horizon, quantiles)
        assert (units >= 0).all()
        assert (units % 1 == 0).all(), "orders are whole units"
        assert (np.diff(units, axis=1) >= 0).all()
        assert (np.diff(cumulative, axis=1) >= 0).all()
        assert (np.diff(cumulative, axis=0) >= 0).all()
        np.testing.assert_array_equal(cumulative[0], units[0])
        assert (cumulative >= units).all(), "a sum of demand is at least each of its parts"
        mean_H = np.array(forecast["mean_units"])
        assert mean_H.shape == (horizon,)
        assert (mean_H >= 0).all()
        np.testing.assert_allclose(forecast["mean_cumulative"], mean_H.cumsum(), rtol=1e-4)
    _require_sums(forecast_of, skus)


def _require_sums(forecast_of: dict[str, dict[str, Any]], skus: set[str]) -> None:
    """Fail unless the newest means of products add up to those of categories and of the total."""
    mean_of = {name: np.array(forecast["mean_units"]) for name, forecast in forecast_of.items()}
    assert len({forecast["origin_ms"] for forecast in forecast_of.values()}) == 1
    catalog = dict(pl.read_parquet(sample_catalog(), columns=["sku", "category"]).iter_rows())
    sums: dict[str, Any] = {"total": sum(mean_of[sku] for sku in skus)}
    for sku in skus & catalog.keys():
        name = f"category:{catalog[sku]}"
        sums[name] = sums.get(name, 0) + mean_of[sku]
    assert sums["total"].sum() > 0
    assert sums.keys() == {name for name in mean_of if name not in skus}
    for name, sum_H in sums.items():
        np.testing.assert_allclose(mean_of[name], sum_H, rtol=1e-3, err_msg=name)
