"""The LSTM trains in bfloat16 on every CPU, with or without a fused kernel for it."""

import pytest
import torch
from torch import Tensor

from model.networks import lstm
from model.networks.lstm import LstmNetwork

BATCH, LENGTH, INPUTS, CALENDAR, HIDDEN, LAYERS = 6, 20, 5, 3, 16, 2


@pytest.fixture
def network() -> LstmNetwork:
    torch.manual_seed(4)
    return LstmNetwork(INPUTS, CALENDAR, hidden=HIDDEN, layers=LAYERS)


def _encode(network: LstmNetwork, *, mixed: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Encodings and final state, then the gradient of each weight."""
    generator = torch.Generator().manual_seed(5)
    inputs_BTI = torch.randn(BATCH, LENGTH, INPUTS, generator=generator)
    calendar_BTC = torch.randn(BATCH, LENGTH, CALENDAR, generator=generator)
    state = tuple(0.1 * torch.randn(BATCH, HIDDEN, generator=generator) for _ in range(2 * LAYERS))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        encoded, after = network.forward(inputs_BTI, calendar_BTC, state)
    loss = encoded.float().square().mean()
    gradients = list(torch.autograd.grad(loss, list(network.parameters())))
    return [encoded, *after], gradients


def _assert_near(one: list[Tensor], other: list[Tensor], share: float) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.float() - b.float()).norm() <= share * b.float().norm()


@pytest.mark.parametrize("fused", ["by cells", "as this machine can"])
def test_bfloat16_rounds_products_but_not_values_or_gradients(
    network: LstmNetwork, monkeypatch: pytest.MonkeyPatch, fused: str
) -> None:
    """Outputs and gradients are those of float32 up to the rounding of bfloat16."""
    exact, exact_gradients = _encode(network, mixed=False)
    if fused == "by cells":
        monkeypatch.setattr(lstm, "fused_bfloat16", lambda: False)
    mixed, gradients = _encode(network, mixed=True)

    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert not torch.equal(mixed[0].float(), exact[0])
    _assert_near(mixed, exact, 0.02)
    _assert_near(gradients, exact_gradients, 0.05)


def test_cells_compute_what_the_fused_kernel_computes(network: LstmNetwork) -> None:
    """In float32 both give the same encodings, state and gradients."""
    fused, fused_gradients = _encode(network, mixed=False)

    def by_cells(
        inputs_BTI: Tensor, calendar_BTC: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        both_BTX = torch.cat((inputs_BTI, calendar_BTC), dim=2)
        return network._forward_by_cells(both_BTX, state)

    network.forward = by_cells  # type: ignore[method-assign]  # the same call, by cells
    cells, gradients = _encode(network, mixed=False)

    _assert_near(cells, fused, 1e-5)
    _assert_near(gradients, fused_gradients, 1e-4)


def test_without_a_fused_kernel_the_state_stays_float32(
    network: LstmNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Increments far below the cell's value are not lost."""
    monkeypatch.setattr(lstm, "fused_bfloat16", lambda: False)
    (_, *after), _ = _encode(network, mixed=True)

    assert len(after) == 2 * LAYERS
    assert all(part.dtype == torch.float32 for part in after)


def test_probing_the_kernel_does_not_use_the_random_generator() -> None:
    """The first training in a process gives the same weights as a later one."""
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    lstm.fused_bfloat16.cache_clear()
    lstm.fused_bfloat16()

    assert torch.equal(torch.rand(1), expected)
