"""Served sums contradict neither the buckets they contain nor shorter sums."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.inputs.anchors import FACTORS, Anchors
from model.inputs.seasons.calendar import N_HORIZON
from model.networks.quantile_heads import QuantileHeads
from model.networks.quantile_levels import PublishedLevels
from model.workspace import Workspace

WIDTH, INPUTS, SERIES = 6, 2, 4
LEVELS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


@given(
    seed=st.integers(0, 2**32 - 1),
    horizon=st.integers(1, 12),
    weight=st.sampled_from((0.1, 1.0, 10.0, 100.0)),
    season=st.floats(0.0, 4.0),
    published=st.sets(st.sampled_from((0.01, *LEVELS, 0.995)), min_size=1).map(sorted),
)
@settings(max_examples=60, deadline=None)
def test_sums_are_never_below_their_parts(
    seed: int, horizon: int, weight: float, season: float, published: list[float]
) -> None:
    """For any weights, anchors and levels: rising in the level, coherent at each."""
    torch.manual_seed(seed)
    heads = QuantileHeads(WIDTH, INPUTS, N_HORIZON, quantiles=LEVELS, rank=3).eval()
    scale = torch.rand(SERIES) * 100
    logs = tuple(season * torch.randn(SERIES, horizon) for _ in FACTORS)
    anchors = Anchors(logs, 0.02 + 5 * torch.rand(SERIES))
    out = tuple(torch.empty(SERIES, horizon, len(published)) for _ in range(2))
    with torch.no_grad():
        for part in heads.parameters():
            part.mul_(weight)
        weights = heads.horizon_weights(torch.randn(1, horizon, N_HORIZON))[0].flatten(2)
        heads.serve(
            torch.randn(SERIES, WIDTH), torch.randn(SERIES, INPUTS), weights, (scale, scale),
            out, mean_BH=torch.empty(SERIES, horizon), anchors=anchors, work=Workspace(),
            levels=PublishedLevels.of(LEVELS, published),
        )  # fmt: skip
    units_SHQ, sums_SHQ = (block.numpy() for block in out)

    assert np.isfinite(sums_SHQ).all()
    assert units_SHQ.min() >= 0
    np.testing.assert_array_equal(sums_SHQ[:, 0], units_SHQ[:, 0])
    assert (np.diff(sums_SHQ, axis=1) >= 0).all()
    assert (sums_SHQ >= np.maximum.accumulate(units_SHQ, axis=1)).all()
    largest = max(1.0, float(sums_SHQ.max()))
    for block in (units_SHQ, sums_SHQ):
        assert (np.diff(block, axis=2) >= -1e-5 * largest).all()
