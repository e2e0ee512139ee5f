"""Quantiles rise by construction, and serving equals training."""

import torch

from model.inputs.calendar import N_CALENDAR
from model.networks.quantile_heads import QuantileHeads, rising, rising_sums
from model.workspace import Workspace


def _heads() -> QuantileHeads:
    torch.manual_seed(2)
    return QuantileHeads(16, 3, N_CALENDAR, horizon=5, n_quantiles=9, rank=4).eval()


def test_quantiles_rise_for_any_logits() -> None:
    logits = torch.randn(50, 5, 9, generator=torch.Generator().manual_seed(0)) * 20

    assert (rising(logits).diff(dim=-1) >= 0).all()
    sums = rising_sums(logits)
    assert (sums.diff(dim=-1) >= 0).all()
    assert (sums.diff(dim=-2) >= 0).all()


def test_serving_equals_training_cut_at_zero_and_scaled() -> None:
    heads = _heads()
    generator = torch.Generator().manual_seed(1)
    encoded = torch.randn(7, 16, generator=generator)
    inputs = torch.randn(7, 3, generator=generator)
    horizon = torch.rand(1, 5, N_CALENDAR, generator=generator)
    scale = torch.rand(7, generator=generator) * 10
    with torch.no_grad():
        units, sums = heads(encoded[None], inputs[None], horizon)
        served = torch.empty(2, 7, 5, 9)
        weights = heads.horizon_weights(horizon)[0].flatten(2)
        heads.serve(
            encoded, inputs, weights, (scale, scale), (served[0], served[1]), work=Workspace()
        )

    for trained, out in ((units, served[0]), (sums, served[1])):
        expected = trained[0].clamp(min=0) * scale[:, None, None]
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_a_forecast_close_to_zero_is_served_as_zero() -> None:
    heads = _heads()
    with torch.no_grad():
        heads.write.weight.zero_()
        heads.write.bias.zero_()
        heads.write.bias.view(5, 2, 9)[-1].fill_(-9.0)
        served = torch.empty(2, 3, 5, 9)
        weights = heads.horizon_weights(torch.zeros(1, 5, N_CALENDAR))[0].flatten(2)
        heads.serve(
            torch.zeros(3, 16),
            torch.zeros(3, 3),
            weights,
            (torch.ones(3) * 1e6,) * 2,
            (served[0], served[1]),
            work=Workspace(),
        )

    assert served.abs().max() == 0
