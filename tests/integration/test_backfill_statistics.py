"""A backfilled store keeps the last weeks of a file; statistics are of all of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from redis import Redis

from model.config import ModelConfig
from model.durations import HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.carried_statistics import AGE
from model.inputs.statistics_identity import inherited_width
from model.networks.quantile_network import QuantileNetwork
from stream.jobs.backfill import backfill
from stream.jobs.history.file_statistics import keep_statistics
from stream.jobs.history.from_files import build_history
from stream.serving.carried_states import StatefulModel
from stream.serving.state_snapshots import Snapshots
from stream.serving.store_reads import ServingReads
from stream.settings import Settings
from stream.state import keys
from tests.integration.test_cli import surgecast
from tests.support.samples import START_MS, small_catalog, small_orders

PARTITIONS, HOURS, KEPT_HOURS = 3, 90, 24
ORDERS = small_orders(3_000, hours=96)
CATALOG = small_catalog(ORDERS)
UNTIL_MS = START_MS + HOURS * HOUR_MS


def _settings(folder: Path) -> Settings:
    return Settings(
        data_dir=folder,
        kafka={"partitions": PARTITIONS},
        state={"retention": f"{KEPT_HOURS}h"},
    )


def _model() -> NetworkForecaster:
    torch.manual_seed(1)
    config = ModelConfig(horizon=6, bucket_ms=HOUR_MS, hidden=8, layers=1, rank=4, prior=True)
    return NetworkForecaster(QuantileNetwork(config), "m")


@pytest.mark.parametrize("tag", [0, 1, 2, "r"])
def test_a_first_model_knows_the_whole_file(
    redis_client: Redis, tmp_path: Path, tag: keys.Tag
) -> None:
    """Its statistics are those of a model that has carried every bucket, roll-ups included."""
    settings = _settings(tmp_path)
    backfill(settings, redis_client, ORDERS, catalog=CATALOG, until_ms=UNTIL_MS)
    whole = build_history(ORDERS, catalog=CATALOG, bucket_ms=HOUR_MS, end_ms=UNTIL_MS)
    lived = (UNTIL_MS - whole.start_ms) // HOUR_MS
    model = _model()
    width = inherited_width(model.config)

    carried = keep_statistics(settings, redis_client, whole)

    assert lived - KEPT_HOURS < carried < lived
    snapshots = Snapshots(redis_client, settings.states_path)
    reads = ServingReads(redis_client, partitions=PARTITIONS, bucket_ms=HOUR_MS)
    ready = StatefulModel(model).catch_up(tag, None, reads.history, snapshots=snapshots)
    assert ready is not None
    states = ready.carried.states
    found: Any = redis_client.lrange(keys.of(tag, "series"), 0, -1)
    names = [name.decode() for name in found]
    values_TSF = whole.dense([whole.series.index(name) for name in names])
    right = model.new_states(len(names))
    model.warm_up(right, values_TSF[:-1], whole.start_ms)
    made_SI = states.stats_SK[: len(names), :width].numpy()
    np.testing.assert_array_equal(made_SI, right.stats_SK[: len(names), :width].numpy())
    assert made_SI[:, AGE].max() > KEPT_HOURS


def test_the_command_carries_them_unless_told_otherwise(
    redis_client: Redis, valkey_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "orders.parquet"
    ORDERS.write_parquet(file)
    environment = {
        "SURGECAST_REDIS__URL": valkey_url,
        "SURGECAST_DATA_DIR": str(tmp_path),
        "SURGECAST_STATE__RETENTION": f"{KEPT_HOURS}h",
    }
    until = str(np.datetime64(UNTIL_MS, "ms"))
    fill = ("backfill", str(file), "--until", until, "--force")

    with_statistics = surgecast(*fill, environment=environment)
    kept = redis_client.hlen(keys.of("r", "statistics"))
    without = surgecast(*fill, "--no-statistics", environment=environment)

    assert (with_statistics.returncode, without.returncode) == (0, 0), without.stderr
    assert "carried their statistics over" in with_statistics.stderr
    assert kept == 1
    assert redis_client.hlen(keys.of("r", "statistics")) == 0
