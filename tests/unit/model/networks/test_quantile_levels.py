"""Any levels can be published from those of a network."""

from itertools import pairwise
from statistics import NormalDist

import pytest
import torch

from model.config import DECILES
from model.networks.quantile_levels import PublishedLevels

TAILS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def _published(quantiles: list[float], levels: tuple[float, ...]) -> list[float]:
    """Quantiles at other levels than the deciles."""
    published: list[float] = (
        torch.tensor(quantiles) @ PublishedLevels.of(DECILES, levels).weights
    ).tolist()
    return published


def test_the_own_levels_are_published_as_they_are() -> None:
    """Bit for bit, each alone or among others."""
    assert torch.equal(PublishedLevels.of(DECILES, DECILES).weights, torch.eye(9))
    among = PublishedLevels.of(DECILES, (0.05, 0.5, 0.77, 0.9)).weights
    assert torch.equal(among[:, [1, 3]], torch.eye(9)[:, [4, 8]])


def test_levels_of_a_normal_distribution_are_exact() -> None:
    """Between and beyond the levels of the network."""
    normal = NormalDist(50.0, 12.0)
    levels = (0.005, 0.01, 0.05, 0.15, 0.33, 0.5, 0.85, 0.975, 0.999)
    own = [normal.inv_cdf(level) for level in DECILES]

    assert _published(own, levels) == pytest.approx(
        [normal.inv_cdf(level) for level in levels], rel=1e-4
    )


@pytest.mark.parametrize("quantiles", [[0.0] * 5 + [1.0, 3.0, 3.0, 9.0], [2.0] * 9])
def test_published_quantiles_rise_with_the_level(quantiles: list[float]) -> None:
    levels = tuple(k / 200 for k in range(1, 200))
    published = _published(quantiles, levels)

    assert all(b >= a - 1e-5 for a, b in pairwise(published))
    inside = [q for q, level in zip(published, levels, strict=True) if 0.1 <= level <= 0.9]
    assert inside[0] == pytest.approx(quantiles[0], abs=1e-5)
    assert inside[-1] == pytest.approx(quantiles[-1], abs=1e-5)


def test_beyond_the_outermost_levels_the_last_slope_continues() -> None:
    """A steep end gives a longer tail than a flat one, and a flat end none."""
    steep, flat, none = (_published([*range(8), last], (0.9, 0.99)) for last in (17.0, 8.0, 7.0))

    assert steep[1] - steep[0] > 5 * (flat[1] - flat[0]) > 0
    assert none[1] == none[0] == 7.0


@pytest.mark.parametrize("levels", [(0.5,), TAILS])
def test_weights_of_each_published_level_add_up_to_one(levels: tuple[float, ...]) -> None:
    weights = PublishedLevels.of(levels, (0.02, 0.5, 0.6, 0.995)).weights

    assert weights.shape == (len(levels), 4)
    assert weights.sum(dim=0).tolist() == pytest.approx([1.0] * 4)
