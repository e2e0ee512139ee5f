"""Recurrent networks compute in bfloat16 where autocast would choose float16."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.networks import gru, lstm
from model.networks.base import State
from model.networks.bfloat16 import encode_in_bfloat16
from model.networks.gru import GruNetwork
from model.networks.lstm import LstmNetwork

INPUTS, CALENDAR, HIDDEN, LAYERS = 5, 3, 16, 2


def _sequence() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(torch.randn(6, 20, width, generator=generator) for width in (INPUTS, CALENDAR))  # type: ignore[return-value]  # two


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_it_is_the_network_with_rounded_numbers(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    """Encodings, state and gradients are those of float32, to the digits of bfloat16."""
    torch.manual_seed(4)
    rnn = kind(INPUTS, HIDDEN, LAYERS, batch_first=True)
    inputs_BTX, _ = _sequence()
    parts = 2 if kind is nn.LSTM else 1
    state = tuple(torch.zeros(LAYERS, 6, HIDDEN) for _ in range(parts))
    exact, exact_after = rnn(inputs_BTX, state if parts == 2 else state[0])
    exact_after = exact_after if parts == 2 else (exact_after,)

    rounded, after = encode_in_bfloat16(rnn, inputs_BTX, state)

    assert rounded.dtype == torch.bfloat16
    for one, other in zip((rounded, *after), (exact, *exact_after), strict=True):
        assert 0 < (one.float() - other).norm() <= 0.02 * other.norm()
    weights = list(rnn.parameters())
    gradients = torch.autograd.grad(rounded.float().square().mean(), weights)
    exact_gradients = torch.autograd.grad(exact.square().mean(), weights)
    for one, other in zip(gradients, exact_gradients, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.05 * other.norm()


@pytest.mark.parametrize(("module", "kernel"), [(lstm, "lstm"), (gru, "gru")])
def test_kernels_get_bfloat16_where_autocast_would_make_it_float16(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, kernel: str
) -> None:
    """Inside, autocast is off and every operand is bfloat16 already."""
    network: LstmNetwork | GruNetwork = (
        LstmNetwork(INPUTS, CALENDAR, hidden=HIDDEN, layers=LAYERS)
        if module is lstm
        else GruNetwork(INPUTS, CALENDAR, hidden=HIDDEN, layers=LAYERS)
    )
    lstm.fused_bfloat16()  # its probe is no encoding
    seen: list[tuple[bool, torch.dtype]] = []
    original: Callable[..., Any] = getattr(torch, kernel)

    def watched(inputs: Tensor, *rest: Any) -> Any:
        seen.append((torch.is_autocast_enabled("cpu"), inputs.dtype))
        return original(inputs, *rest)

    monkeypatch.setattr(torch, kernel, watched)
    monkeypatch.setattr(module, "autocast_is_float16", lambda _: True)
    state: State = network.new_state(6, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        encoded, after = network.forward(*_sequence(), state)

    assert seen == [(False, torch.bfloat16)]
    assert encoded.shape == (6, 20, HIDDEN)
    assert [part.shape for part in after] == [part.shape for part in state]
