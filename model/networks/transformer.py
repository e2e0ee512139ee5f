"""Causal transformer with a rolling key/value cache: attention over the last `context` buckets.

The cache is a ring for each series: a step writes one key and one value and attends over the ring.
Positions are a penalty on distance (ALiBi, arXiv:2108.12409), so the result does not depend on the
length of the history read. Several layers with a window of W buckets see further back than W.

Axes: B = series in the batch, T = buckets, I = inputs of a series, C = calendar, D = model width, W
= context, A = attention heads, E = D / A.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.base import State
from model.workspace import Workspace

_HEADS = 4


class _Block(nn.Module):
    """Attention and a feed-forward layer, each after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )


class TransformerNetwork(nn.Module):
    """Transformer behind the `Network` protocol.

    The state is the number of buckets read, [B, 1], then keys and values [B, W, D] of each layer.
    """

    def __init__(
        self, n_inputs: int, n_calendar: int, *, hidden: int, layers: int, context: int
    ) -> None:
        super().__init__()
        if hidden % _HEADS:
            raise ValueError(f"hidden {hidden} must be a multiple of {_HEADS} for a transformer")
        self.width = hidden
        self.context = context
        self.n_inputs = n_inputs
        self.products = torch.float32
        self.embed = nn.Linear(n_inputs + n_calendar, hidden)
        self.blocks = [_Block(hidden) for _ in range(layers)]
        for layer, block in enumerate(self.blocks):
            self.add_module(f"block_{layer}", block)
        self.last = nn.LayerNorm(hidden)
        slopes = torch.tensor([2.0 ** -(1 + 1.5 * head) for head in range(_HEADS)])
        self.slopes_A: Tensor
        self.register_buffer("slopes_A", slopes, persistent=False)

    @property
    def input_weights(self) -> Tensor:
        """The weights applied to the inputs and the calendar."""
        return self.embed.weight

    def new_state(self, batch: int, device: torch.device) -> State:
        """Zero buckets read, empty caches."""
        caches = [
            torch.zeros(batch, self.context, self.width, device=device)
            for _ in range(2 * len(self.blocks))
        ]
        return (torch.zeros(batch, 1, device=device), *caches)

    def prepare(self) -> None:
        """Do nothing: there is nothing to pack."""

    def forward(
        self, inputs_BTI: Tensor, calendar_BTC: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Encode a sequence that follows the cached window."""
        count_B1 = state[0].long()
        length, window = inputs_BTI.shape[1], self.context
        places_W = torch.arange(window, device=count_B1.device)
        oldest_first_BW = (count_B1 + places_W) % window
        known_BW = places_W >= window - count_B1
        bias = self._window_bias(length, known_BW)
        kept = min(length, window)
        written_BX = (
            count_B1 + torch.arange(length - kept, length, device=count_B1.device)
        ) % window

        hidden_BTD = self.embed(torch.cat((inputs_BTI, calendar_BTC), dim=2))
        after: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            query, key, value = block.qkv(block.norm(hidden_BTD)).chunk(3, dim=2)
            both = []
            for fresh, ring in ((key, state[1 + 2 * layer]), (value, state[2 + 2 * layer])):
                cached = ring.gather(1, oldest_first_BW[:, :, None].expand_as(ring))
                both.append(torch.cat((cached, fresh), dim=1))
                newest = fresh[:, length - kept :].to(ring.dtype)  # the state stays float32
                place = written_BX[:, :, None].expand_as(newest)
                after.append(ring.scatter(1, place, newest))
            hidden_BTD = _attend(block, hidden_BTD, query, (both[0], both[1]), bias)
        return self.last(hidden_BTD), (state[0] + length, *after)

    def step(
        self,
        inputs_BI: Tensor,
        calendar_C: Tensor,
        state: State,
        work: Workspace,
    ) -> Tensor:
        """Encode one bucket; carry `state` over it in place."""
        if self.products == torch.float32:
            return self._step(inputs_BI, calendar_C, state)
        with torch.autocast(inputs_BI.device.type, self.products):
            return self._step(inputs_BI, calendar_C, state).to(inputs_BI.dtype)

    def _step(self, inputs_BI: Tensor, calendar_C: Tensor, state: State) -> Tensor:
        count_B1 = state[0].long()
        window = self.context
        place_B1 = count_B1 % window
        distance_BW = (place_B1 - torch.arange(window, device=count_B1.device)) % window
        bias = -self.slopes_A[None, :, None, None] * distance_BW[:, None, None, :]
        bias = bias.masked_fill((distance_BW > count_B1)[:, None, None, :], float("-inf"))
        calendar_BC = calendar_C.expand(inputs_BI.shape[0], -1)
        hidden_B1D = self.embed(torch.cat((inputs_BI, calendar_BC), dim=1))[:, None]
        for layer, block in enumerate(self.blocks):
            query, key, value = block.qkv(block.norm(hidden_B1D)).chunk(3, dim=2)
            for fresh, ring in ((key, state[1 + 2 * layer]), (value, state[2 + 2 * layer])):
                place = place_B1[:, :, None].expand_as(fresh)
                ring.scatter_(1, place, fresh.to(ring.dtype))
            rings = state[1 + 2 * layer], state[2 + 2 * layer]
            hidden_B1D = _attend(block, hidden_B1D, query, rings, bias)
        state[0].add_(1)
        encoded: Tensor = self.last(hidden_B1D)[:, 0]
        return encoded

    def newest(
        self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace
    ) -> Tensor:
        """Encode the newest bucket again: it writes the same keys and values to the same place."""
        count_B1, *rings = state
        before = (count_B1 - 1, *(ring.clone() for ring in rings))
        return self.step(inputs_BI, calendar_C, before, work)

    def _window_bias(self, length: int, known_BW: Tensor) -> Tensor:
        """Penalty [B, A, T, W + T] on distance; minus infinity outside the window."""
        window = self.context
        device = known_BW.device
        distance = (
            window
            + torch.arange(length, device=device)[:, None]
            - torch.arange(window + length, device=device)
        )
        inside = (distance >= 0) & (distance < window)
        bias = -self.slopes_A[None, :, None, None] * distance
        unknown = functional.pad(~known_BW, (0, length))[:, None, None, :]
        return bias.masked_fill(~inside | unknown, float("-inf"))


def _attend(
    block: _Block, hidden: Tensor, query: Tensor, keys_values: tuple[Tensor, Tensor], bias: Tensor
) -> Tensor:
    """One block: hidden and query [B, T, D], keys and values [B, X, D], bias [B, A, T, X]."""

    def heads(part: Tensor) -> Tensor:
        return part.reshape(*part.shape[:2], _HEADS, part.shape[2] // _HEADS).transpose(1, 2)

    keys, values = keys_values
    mixed = functional.scaled_dot_product_attention(
        heads(query), heads(keys), heads(values), attn_mask=bias
    )
    hidden = hidden + block.out(mixed.transpose(1, 2).flatten(2))
    output: Tensor = hidden + block.feed(hidden)
    return output
