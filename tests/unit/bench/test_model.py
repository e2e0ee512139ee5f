"""The benchmarks of the model report the right rows and the cost of a step."""

import pytest

from model.config import ModelConfig
from model.contract import FEATURE_NAMES
from model.durations import HOUR_MS
from model.inference.forecaster import NetworkForecaster
from model.inputs.series_inputs import carried_width, input_names
from model.networks.quantile_network import QuantileNetwork
from stream.bench.inference import bench_inference, step_cost
from stream.bench.report import Row
from stream.bench.training import bench_training
from stream.settings import ModelSettings

SETTINGS = ModelSettings(horizon=3, quantiles=(0.1, 0.5, 0.9))


def _by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def test_a_steps_cost_is_that_of_its_matrices_and_states() -> None:
    """Counted by hand for a small LSTM: gates, projection, heads; states read and written."""
    config = ModelConfig(horizon=3, bucket_ms=HOUR_MS, hidden=8, layers=2, rank=5)
    inputs = len(input_names(config))
    gates = 32 * (inputs + 8) + 32 * (8 + 8)
    heads = 5 * (8 + inputs) + 5 * 2 * 3 * 9
    state_bytes = 4 * (carried_width(config) + 4 * 8)

    operations, moved = step_cost(NetworkForecaster(QuantileNetwork(config), "x", threads=1))

    assert operations == 2 * (gates + heads)
    assert moved == 2 * state_bytes + 4 * (len(FEATURE_NAMES) + 2 * 3 * 9)


@pytest.mark.slow
def test_the_inference_bench_has_the_rows_of_the_contract() -> None:
    lines: list[str] = []
    rows = _by_name(
        bench_inference(SETTINGS, device="cpu", series=700, context=4, notify=lines.append)
    )

    assert list(rows) == ["carried", "reread", "floor"]
    assert all(row.unit == "s" and row.value > 0 for row in rows.values())
    facts = rows["carried"].facts
    assert facts["forecast_bytes_per_series"] == 2 * 4 * 3 * 3
    assert facts["state_bytes_per_series"] < 3_000
    assert rows["reread"].facts["measured_series"] == 700
    assert len(lines) == 3


def test_the_inference_bench_steps_further_targets_too() -> None:
    settings = SETTINGS.model_copy(update={"targets": ("revenue", "visitors")})
    rows = _by_name(
        bench_inference(settings, device="cpu", series=50, context=2, notify=lambda _: None)
    )

    assert rows["carried"].facts["forecast_bytes_per_series"] == 4 * 4 * 3 * 3


@pytest.mark.slow
def test_the_training_bench_times_both_precisions() -> None:
    rows = _by_name(
        bench_training(SETTINGS, device="cpu", lanes=4, updates=2, notify=lambda _: None)
    )

    assert list(rows) == ["training_float32", "training_bfloat16"]
    assert all(row.value > 0 for row in rows.values())
