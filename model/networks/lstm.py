"""Stacked LSTM (Hochreiter & Schmidhuber 1997), the default network.

Training runs torch's fused sequence kernel. Serving computes the cell on packed weights: the
calendar, the same for all series, becomes part of the bias, and the state is updated in place.

Axes: B = series in the batch, T = buckets, I = inputs of a series, C = calendar, D = hidden width,
L = layers.
"""

from functools import cache

import torch
from torch import Tensor, nn

from model.networks.base import State
from model.networks.bfloat16 import autocast_is_float16, encode_in_bfloat16
from model.networks.products import products_into
from model.workspace import Workspace


class LstmNetwork(nn.Module):
    """LSTM behind the `Network` protocol; the state is (h, c) of each layer, each [B, D]."""

    def __init__(self, n_inputs: int, n_calendar: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.width = hidden
        self.layers = layers
        self.n_inputs = n_inputs
        self.products = torch.float32
        self.lstm = nn.LSTM(n_inputs + n_calendar, hidden, layers, batch_first=True)
        with torch.no_grad():
            for layer in range(layers):  # open forget gates (Jozefowicz et al. 2015)
                getattr(self.lstm, f"bias_ih_l{layer}")[hidden : 2 * hidden].fill_(1.0)
        self._packed: list[tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def input_weights(self) -> Tensor:
        """The weights applied to the inputs and the calendar."""
        return self.lstm.get_parameter("weight_ih_l0")

    def new_state(self, batch: int, device: torch.device) -> State:
        """Zeros: (h, c) of each layer."""
        return tuple(torch.zeros(batch, self.width, device=device) for _ in range(2 * self.layers))

    def forward(
        self, inputs_BTI: Tensor, calendar_BTC: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Encode a sequence."""
        self._packed = None
        hidden_LBD = torch.stack(state[0::2])
        cell_LBD = torch.stack(state[1::2])
        both_BTX = torch.cat((inputs_BTI, calendar_BTC), dim=2)
        on_cpu = both_BTX.device.type == "cpu"
        if on_cpu and torch.is_autocast_enabled("cpu") and not fused_bfloat16():
            return self._forward_by_cells(both_BTX, state)
        before = hidden_LBD, cell_LBD
        if autocast_is_float16(both_BTX.device):
            encoded_BTD, (hidden_LBD, cell_LBD) = encode_in_bfloat16(self.lstm, both_BTX, before)
        else:
            encoded_BTD, (hidden_LBD, cell_LBD) = self.lstm(both_BTX, before)
        after = tuple(
            part[layer] for layer in range(self.layers) for part in (hidden_LBD, cell_LBD)
        )
        return encoded_BTD, after

    def _forward_by_cells(self, inputs_BTX: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode a sequence bucket by bucket; autocast rounds the products, not the state."""
        parameters = dict(self.lstm.named_parameters())
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        after: list[Tensor] = []
        for layer in range(self.layers):
            weights = [parameters[f"{name}_l{layer}"] for name in names]
            hidden_BD, cell_BD = state[2 * layer], state[2 * layer + 1]
            encoded = []
            for inputs_BX in inputs_BTX.unbind(1):
                hidden_BD, cell_BD = torch.lstm_cell(inputs_BX, (hidden_BD, cell_BD), *weights)
                encoded.append(hidden_BD)
            inputs_BTX = torch.stack(encoded, dim=1)
            after += (hidden_BD, cell_BD)
        return inputs_BTX, tuple(after)

    def prepare(self) -> None:
        """Pack the weights once for all steps until the next training."""
        if self._packed is None:
            self._packed = self._pack()

    def step(self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace) -> Tensor:
        """Encode one bucket; carry `state` over it in place."""
        self.prepare()
        assert self._packed is not None
        below_BI = inputs_BI
        gates_BG = work.take("gates", inputs_BI.shape[0], 4 * self.width)
        for layer, (weight_XG, recurrent_DG, bias) in enumerate(self._packed):
            hidden_BD, cell_BD = state[2 * layer], state[2 * layer + 1]
            weight_IG, bias_G = weight_XG, bias
            if layer == 0:  # the calendar is the same for all series
                weight_IG = weight_XG[: self.n_inputs]
                bias_G = bias + calendar_C @ weight_XG[self.n_inputs :].to(calendar_C.dtype)
            products_into(
                gates_BG, bias_G, (below_BI, weight_IG), (hidden_BD, recurrent_DG),
                work=work, dtype=self.products,
            )  # fmt: skip
            into_BD, forget_BD, out_BD, candidate_BD = gates_BG.sigmoid_().chunk(4, dim=1)
            # tanh(x) = 2 · sigmoid(2x) − 1: one pass computes all gates and the candidate, and on a
            # CPU torch's sigmoid takes a sixth of the time of its tanh
            cell_BD.mul_(forget_BD).addcmul_(into_BD, candidate_BD, value=2.0).sub_(into_BD)
            torch.mul(cell_BD, 2.0, out=hidden_BD)
            hidden_BD.sigmoid_().mul_(2.0).sub_(1.0).mul_(out_BD)
            below_BI = hidden_BD
        return below_BI

    def newest(
        self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace
    ) -> Tensor:
        """Return the encoding of the newest bucket, which the state contains."""
        return state[-2]

    def _pack(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Weights [I, 4D], recurrent weights [D, 4D] and bias [4D] of each layer."""
        parameters = dict(self.lstm.named_parameters())
        packed = []
        for layer in range(self.layers):
            weight_GI = _reordered(parameters[f"weight_ih_l{layer}"])
            recurrent_GD = _reordered(parameters[f"weight_hh_l{layer}"])
            bias_G = parameters[f"bias_ih_l{layer}"] + parameters[f"bias_hh_l{layer}"]
            packed.append(
                (
                    weight_GI.t().contiguous().to(self.products),
                    recurrent_GD.t().contiguous().to(self.products),
                    _reordered(bias_G),
                )
            )
        return packed


@cache
def fused_bfloat16() -> bool:
    """True if torch can train its fused LSTM in bfloat16 on this CPU.

    It cannot where oneDNN has no bfloat16, and then fails instead of falling back.
    """
    state = torch.zeros(1, 1, 1)
    weights = [torch.zeros(4, *shape, requires_grad=True) for shape in ((1,), (1,), (), ())]
    try:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            encoded, *_ = torch.lstm(
                torch.zeros(1, 1, 1), (state, state), weights, True, 1, 0.0, True, False, True
            )
            torch.autograd.grad(encoded.float().sum(), weights)
    except RuntimeError:
        return False
    return True


def _reordered(gates: Tensor) -> Tensor:
    """Gates in the order in, forget, out, candidate; the candidate doubled, see `step`."""
    into, forget, candidate, out = gates.detach().chunk(4)
    return torch.cat((into, forget, out, 2.0 * candidate))
