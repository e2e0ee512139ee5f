"""Groups of inputs are apart, and neutral is what a steady series reads."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.contributions import CONTRIBUTIONS
from model.durations import DAY_MS
from model.inputs.input_groups import GROUPS, columns_of, neutral_inputs
from model.inputs.series_inputs import input_names, new_carried, observe
from tests.support.model_cases import START_MS, phases_at

CONFIG = ModelConfig(horizon=7, bucket_ms=DAY_MS, plans=True)


def test_every_group_is_a_contribution_and_no_input_is_in_two() -> None:
    names = [name for group in GROUPS.values() for name in group]

    assert len(set(names)) == len(names)
    assert set(names) <= set(input_names(CONFIG))
    assert set(GROUPS) <= set(CONTRIBUTIONS)
    assert columns_of("closure", ModelConfig(horizon=7, bucket_ms=DAY_MS)) == []


def _observed(last: dict[int, float]) -> dict[str, float]:
    """Inputs less their neutral values, after a year of the same days and a last one."""
    values_TSF = np.zeros((364, 1, 11), np.float32)
    values_TSF[:, :] = [6, 0, 12, 3, 40, 8, 0, 3, 20, 51, 0]
    for column, value in last.items():
        values_TSF[-1, 0, column] = value
    stats = new_carried(1, CONFIG)
    for t, values in enumerate(torch.from_numpy(values_TSF)):
        inputs = observe(stats, values, phases_at(START_MS + t * DAY_MS, DAY_MS), CONFIG)
    neutral = neutral_inputs(inputs, stats, values, CONFIG)
    return dict(zip(input_names(CONFIG), (inputs - neutral)[0].tolist(), strict=True))


def test_the_inputs_of_a_steady_series_are_neutral() -> None:
    assert max(map(abs, _observed({}).values())) < 1e-4


@pytest.mark.parametrize(
    ("last", "groups"),
    [
        ({0: 30.0, 2: 60.0, 3: 15.0}, {"recent", "trend"}),
        ({4: 400.0, 5: 80.0, 8: 200.0, 7: 30.0}, {"clicks"}),
        ({2: 6.0}, {"price", "recent"}),  # revenue belongs to the newest sales
        ({10: 0.3}, {"stock"}),
    ],
    ids=["sales", "clicks", "price", "stock"],
)
def test_an_unusual_bucket_shows_in_its_groups(last: dict[int, float], groups: set[str]) -> None:
    change = _observed(last)

    moved = {g for g, names in GROUPS.items() if any(abs(change[name]) > 0.01 for name in names)}
    assert moved == groups
    grouped = {name for names in GROUPS.values() for name in names}
    assert all(value == 0 for name, value in change.items() if name not in grouped)
