"""Stacked GRU (Cho et al. 2014): a third less state and arithmetic than the LSTM.

Axes: B = series in the batch, T = buckets, I = inputs of a series, C = calendar, D = hidden width,
G = 3·D gates in the order reset, update, new.
"""

import torch
from torch import Tensor, nn

from model.networks.base import State
from model.networks.bfloat16 import autocast_is_float16, encode_in_bfloat16
from model.networks.products import products_into
from model.workspace import Workspace

_Packed = tuple[Tensor, Tensor, Tensor, Tensor]


class GruNetwork(nn.Module):
    """GRU behind the `Network` protocol; the state is h of each layer, each [B, D]."""

    def __init__(self, n_inputs: int, n_calendar: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.width = hidden
        self.layers = layers
        self.n_inputs = n_inputs
        self.products = torch.float32
        self.gru = nn.GRU(n_inputs + n_calendar, hidden, layers, batch_first=True)
        self._packed: list[_Packed] | None = None

    @property
    def input_weights(self) -> Tensor:
        """The weights applied to the inputs and the calendar."""
        return self.gru.get_parameter("weight_ih_l0")

    def new_state(self, batch: int, device: torch.device) -> State:
        """Zeros: h of each layer."""
        return tuple(torch.zeros(batch, self.width, device=device) for _ in range(self.layers))

    def forward(
        self, inputs_BTI: Tensor, calendar_BTC: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Encode a sequence."""
        self._packed = None
        both_BTX = torch.cat((inputs_BTI, calendar_BTC), dim=2)
        hidden_LBD = torch.stack(state)
        if autocast_is_float16(both_BTX.device):
            encoded_BTD, (hidden_LBD,) = encode_in_bfloat16(self.gru, both_BTX, (hidden_LBD,))
        else:
            encoded_BTD, hidden_LBD = self.gru(both_BTX, hidden_LBD)
        return encoded_BTD, tuple(hidden_LBD)

    def prepare(self) -> None:
        """Pack the weights once for all steps until the next training."""
        if self._packed is None:
            self._packed = self._pack()

    def step(self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace) -> Tensor:
        """Encode one bucket; carry `state` over it in place."""
        self.prepare()
        assert self._packed is not None
        below_BI = inputs_BI
        shape = (inputs_BI.shape[0], 3 * self.width)
        input_BG, carried_BG = work.take("input", *shape), work.take("carried", *shape)
        split = 2 * self.width
        for layer, (weight_XG, bias, recurrent_DG, recurrent_bias_G) in enumerate(self._packed):
            hidden_BD = state[layer]
            weight_IG, bias_G = weight_XG, bias
            if layer == 0:  # the calendar is the same for all series
                weight_IG = weight_XG[: self.n_inputs]
                bias_G = bias + calendar_C @ weight_XG[self.n_inputs :].to(calendar_C.dtype)
            dtype, carried = self.products, (hidden_BD, recurrent_DG)
            products_into(input_BG, bias_G, (below_BI, weight_IG), work=work, dtype=dtype)
            products_into(carried_BG, recurrent_bias_G, carried, work=work, dtype=dtype)
            gates_BG = input_BG[:, :split].add_(carried_BG[:, :split]).sigmoid_()
            reset_BD, update_BD = gates_BG.chunk(2, dim=1)
            new_BD = input_BG[:, split:].addcmul_(reset_BD, carried_BG[:, split:])
            new_BD.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)  # tanh, several times faster on a CPU
            hidden_BD.sub_(new_BD).mul_(update_BD).add_(new_BD)
            below_BI = hidden_BD
        return below_BI

    def newest(
        self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace
    ) -> Tensor:
        """Return the encoding of the newest bucket, which is the state of the last layer."""
        return state[-1]

    def _pack(self) -> list[_Packed]:
        """Weights and biases of each layer, for the input and for the carried state."""
        parameters = {name: part.detach() for name, part in self.gru.named_parameters()}
        return [
            (
                parameters[f"weight_ih_l{layer}"].t().contiguous().to(self.products),
                parameters[f"bias_ih_l{layer}"],
                parameters[f"weight_hh_l{layer}"].t().contiguous().to(self.products),
                parameters[f"bias_hh_l{layer}"],
            )
            for layer in range(self.layers)
        ]
