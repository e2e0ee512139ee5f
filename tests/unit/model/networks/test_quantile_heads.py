"""Quantiles rise for any weights and any series, and serving equals training."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import DECILES
from model.inputs.anchors import FACTORS, Anchors
from model.inputs.plans import CLOSURE_INPUT, PLAN_INPUT_NAMES
from model.inputs.seasons.calendar import N_HORIZON
from model.networks.quantile_heads import ZERO_SHIFT, QuantileHeads
from model.networks.quantile_levels import PublishedLevels
from model.quantiles.coherence import make_coherent
from model.quantiles.mean import mean_weights
from model.workspace import Workspace

SERIES, STEPS, WIDTH, INPUTS = 7, 5, 16, 3
TAILS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def _heads(quantiles: tuple[float, ...] = DECILES, *, targets: int = 0) -> QuantileHeads:
    """Heads with random weights, also for the gates."""
    torch.manual_seed(2)
    heads = QuantileHeads(WIDTH, INPUTS, N_HORIZON, quantiles=quantiles, rank=4, n_targets=targets)
    with torch.no_grad():
        heads.write.weight.mul_(10.0)
        heads.gates.weight.normal_()
    return heads.eval()


def _anchors(first: Tensor | None = None, error: Tensor | None = None) -> Anchors:
    """Strong seasons, closed buckets, and errors from small to large; or these, and no others."""
    generator = torch.Generator().manual_seed(3)
    logs = torch.randn(len(FACTORS), SERIES, STEPS, generator=generator).unbind(0)
    logs[0][0, :2] = -7.0
    if error is None:
        error = 0.02 + 4.0 * torch.rand(SERIES, generator=generator)
    if first is not None:
        logs = (first, *torch.zeros(len(FACTORS) - 1, SERIES, STEPS).unbind(0))
    return Anchors(logs, error)


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(SERIES, WIDTH, generator=generator),
        torch.randn(SERIES, INPUTS, generator=generator),
        torch.rand(1, STEPS, N_HORIZON, generator=generator),
    )


def _trained(heads: QuantileHeads, anchors: Anchors) -> tuple[Tensor, ...]:
    """Blocks [B, H, Q] as in training."""
    encoded, inputs, horizon = _inputs()
    with torch.no_grad():
        made = heads(encoded[None], inputs[None], horizon, anchors.map(lambda part: part[None]))
    return tuple(block[0] for block in made)


def _served(
    heads: QuantileHeads,
    anchors: Anchors,
    scales: tuple[Tensor, ...],
    published: tuple[float, ...] = DECILES,
) -> tuple[Tensor, ...]:
    encoded, inputs, horizon = _inputs()
    out = tuple(torch.empty(SERIES, STEPS, len(published)) for _ in scales)
    mean = torch.empty(SERIES, STEPS)
    with torch.no_grad():
        weights = heads.horizon_weights(horizon)[0].flatten(2)
        heads.serve(
            encoded, inputs, weights, scales, out,
            mean_BH=mean, anchors=anchors, work=Workspace(),
            levels=PublishedLevels.of(DECILES, published),
        )  # fmt: skip
    return (*out, mean)


@pytest.mark.parametrize("quantiles", [DECILES, TAILS, (0.5,), (0.1, 0.9)], ids=len)
def test_quantiles_rise_for_any_weights(quantiles: tuple[float, ...]) -> None:
    heads = _heads(quantiles)
    for units_or_sums in _trained(heads, _anchors()):
        assert units_or_sums.shape == (SERIES, STEPS, len(quantiles))
        assert (units_or_sums.diff(dim=-1) >= 0).all()


def test_serving_equals_training_cut_at_zero_and_scaled() -> None:
    """Sums are made coherent afterwards."""
    heads, anchors = _heads(), _anchors()
    scale = torch.rand(SERIES, generator=torch.Generator().manual_seed(4)) * 10
    units, sums = (block.clamp(min=0) * scale[:, None, None] for block in _trained(heads, anchors))
    make_coherent(units.numpy(), sums.numpy())
    served = _served(heads, anchors, (scale, scale))

    assert units.max() > 1
    torch.testing.assert_close(served[0], units, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(served[1], sums, rtol=1e-5, atol=1e-5)


def test_new_heads_forecast_season_and_error_of_the_series() -> None:
    """Before any training: normal errors around the expected median, in units of the error."""
    torch.manual_seed(2)
    heads = QuantileHeads(WIDTH, INPUTS, N_HORIZON, quantiles=DECILES, rank=4).eval()
    with torch.no_grad():
        heads.write.weight.zero_()
        heads.write.bias[: -2 * len(DECILES)] = 0.0
        heads.gates.bias.fill_(20.0)  # the whole season
        heads.gates.bias[-1] = -20.0  # the unit grows with the root of the median
    factor = torch.linspace(0.5, 4.0, STEPS)
    error = torch.full((SERIES,), 0.4)
    deviation = 0.4 * np.sqrt(np.pi / 2) * NormalDist().inv_cdf(0.9)
    units, sums = _trained(heads, _anchors(factor.log().expand(SERIES, -1), error))
    _, flat_sums = _trained(heads, _anchors(torch.zeros(SERIES, STEPS), error))

    torch.testing.assert_close(units[0, :, 4], factor - ZERO_SHIFT, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        units[0, :, -1], factor + deviation * factor.sqrt() - ZERO_SHIFT, rtol=0.02, atol=0
    )
    torch.testing.assert_close(sums[0, :, 4], factor.cumsum(0) - ZERO_SHIFT, rtol=0, atol=1e-4)
    # the errors of the buckets are independent
    roots = torch.arange(1.0, STEPS + 1).sqrt()
    spread = flat_sums[0, :, -1] - flat_sums[0, :, 4]
    torch.testing.assert_close(spread, deviation * roots, rtol=0.02, atol=0)


def test_a_larger_error_widens_and_a_season_moves_the_forecast() -> None:
    heads = _heads()
    anchors = _anchors()
    wider = anchors._replace(error=2 * anchors.error)
    busier = anchors._replace(logs=(anchors.logs[0] + 0.5, *anchors.logs[1:]))
    plain, wide, busy = (_trained(heads, each)[0] for each in (anchors, wider, busier))

    width = plain[..., -1] - plain[..., 0]
    torch.testing.assert_close(wide[..., -1] - wide[..., 0], 2 * width, rtol=1e-4, atol=1e-5)
    assert (busy[..., -1] - busy[..., 0] > width).all()


def test_heads_serve_any_horizon() -> None:
    """The weights of a bucket depend on its own calendar and distance only."""
    heads = _heads()
    _, _, horizon = _inputs()
    with torch.no_grad():
        five = heads.horizon_weights(horizon)
        two = heads.horizon_weights(horizon[:, 1:3])

    torch.testing.assert_close(two, five[..., 1:3, :])


def test_a_forecast_close_to_zero_is_served_as_zero() -> None:
    """A closed bucket of a series with a huge scale."""
    heads = _heads()
    with torch.no_grad():
        heads.write.weight.zero_()
        bias = heads.write.bias.view(5, 2, 9)
        bias.zero_()
        bias[-1] = -9.0
        bias[-1, :, 4] = 0.0
        heads.gates.bias.fill_(20.0)
    closed = _anchors(torch.full((SERIES, STEPS), -7.0), torch.ones(SERIES))
    served = _served(heads, closed, (torch.ones(SERIES) * 1e6,) * 2)

    assert max(block.abs().max() for block in served[:2]) == 0


@pytest.mark.parametrize("targets", [0, 2])
def test_own_levels_among_the_published_are_those_of_the_network(targets: int) -> None:
    heads, anchors = _heads(targets=targets), _anchors()
    scales = tuple(torch.rand(SERIES) * 10 for _ in range(2 + targets))
    own = _served(heads, anchors, scales)
    more = (0.01, *DECILES, 0.95, 0.99)
    published = _served(heads, anchors, scales, more)

    places = [more.index(level) for level in DECILES]
    for one, other in zip(own[:-1], published[:-1], strict=True):
        torch.testing.assert_close(other[..., places], one, rtol=1e-5, atol=1e-5)
        assert (other.diff(dim=-1) >= -1e-5).all()
        assert other.min() >= 0
    assert published[0][..., -1].max() > own[0][..., -1].max()


def test_a_plan_of_heads_without_plans_is_refused() -> None:
    with pytest.raises(ValueError, match="plans"):
        _heads().plan_effects(torch.zeros(1, 4), torch.zeros(1, STEPS, 2))


def test_the_mean_of_rare_demand_is_what_is_expected() -> None:
    """Also where every quantile is zero; the mean of frequent demand learns from its quantiles."""
    heads, anchors = _heads(), _anchors()
    encoded, inputs, _ = _inputs()
    with torch.no_grad():
        factor, _ = heads.expected(heads.code(encoded, inputs), anchors)
    rare, often = (torch.full((SERIES,), scale) for scale in (1e-3, 1e3))

    units, _, mean = _served(heads, anchors, (rare, rare))
    torch.testing.assert_close(mean, 1e-3 * factor, rtol=0.02, atol=0)
    units, _, mean = _served(heads, anchors, (often, often))
    of_quantiles = units @ torch.from_numpy(mean_weights(DECILES))
    torch.testing.assert_close(mean, (1e3 * factor + of_quantiles) / 2, rtol=0.5, atol=1.0)
    assert (mean - 1e3 * factor).abs().max() > 10


def _planned(scale: float, *, closed: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Units, sums and mean with a promotion in bucket 1 and a closure in bucket 2 of series 3."""
    torch.manual_seed(2)
    heads = QuantileHeads(
        WIDTH, INPUTS, N_HORIZON, quantiles=DECILES, rank=4, n_plans=len(PLAN_INPUT_NAMES)
    ).eval()
    with torch.no_grad():
        answer = heads.answer
        assert answer is not None
        answer.bias.view(len(PLAN_INPUT_NAMES), 2, 9)[0, 0, 4] = 2.0
    encoded, inputs, horizon = _inputs()
    level, out = torch.full((SERIES,), scale), torch.empty(2, SERIES, STEPS, 9)
    anchors = _anchors(torch.zeros(SERIES, STEPS), torch.ones(SERIES))
    plans = torch.zeros(1, STEPS, len(PLAN_INPUT_NAMES))
    plans[0, 1, 0] = 1.0
    plans[0, 2, CLOSURE_INPUT] = closed
    mean = torch.empty(SERIES, STEPS)
    with torch.no_grad():
        weights = heads.horizon_weights(horizon)[0].flatten(2)
        heads.serve(
            encoded, inputs, weights, (level, level), tuple(out.unbind(0)), mean_BH=mean,
            anchors=anchors, work=Workspace(), levels=PublishedLevels.of(DECILES, DECILES),
            planned=(torch.tensor([3]), plans),
        )  # fmt: skip
    return out[0], out[1], mean


def test_a_plan_moves_the_mean_of_its_bucket_with_the_median() -> None:
    _, _, mean = _planned(0.01)

    ratio = mean / mean[:1, :1]
    expected = torch.ones(SERIES, STEPS)
    expected[3, 1] = 1.0 + 2.0
    torch.testing.assert_close(ratio, expected, rtol=0.05, atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 100.0], ids=["rare", "often"])
def test_nothing_is_expected_of_a_closed_bucket(scale: float) -> None:
    """Nor does demand until its end grow; half a closed bucket halves what is expected."""
    opened, half, closed = (_planned(scale, closed=share) for share in (0.0, 0.5, 1.0))

    units, sums, mean = closed
    assert not units[3, 2].any()
    assert float(mean[3, 2]) == 0.0
    torch.testing.assert_close(sums[3, 2], sums[3, 1])
    assert (units[2, 2] == opened[0][2, 2]).all()
    if scale < 1:
        torch.testing.assert_close(half[2][3, 2], 0.5 * opened[2][3, 2], rtol=0.02, atol=0)
    assert half[2][3, 2] < opened[2][3, 2]
