"""The protocol of every network: a sequence at once for training, one bucket for serving.

Both ways must give the same numbers; a test checks each architecture. The state is a tuple of
tensors whose first axis is the series, so it can be grown, sliced and cleared for any architecture.

Axes: B = series in the batch, T = buckets, I = inputs of a series, C = calendar, D = encoded width.
"""

from typing import Protocol

import torch
from torch import Tensor

from model.workspace import Workspace

State = tuple[Tensor, ...]


class Network(Protocol):
    """An encoder of the history up to a bucket."""

    width: int
    #: Precision of the matrix products of `step`; those of `forward` follow autocast.
    products: torch.dtype

    @property
    def input_weights(self) -> Tensor:
        """The weights [X, I + C] applied to the inputs and the calendar."""
        ...

    def new_state(self, batch: int, device: torch.device) -> State:
        """State of new series: zeros, first axis B."""
        ...

    def prepare(self) -> None:
        """Pack the weights for `step`; called before threads share the network."""
        ...

    def forward(
        self, inputs_BTI: Tensor, calendar_BTC: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Encode a sequence: [B, T, D] and the state after it. Does not change `state`."""
        ...

    def step(self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace) -> Tensor:
        """Encode one bucket: [B, D]. Carries `state` over the bucket **in place**; no gradient.

        The encoding may be part of the state or of `work`, so it is valid until the next step.
        """
        ...

    def newest(
        self, inputs_BI: Tensor, calendar_C: Tensor, state: State, work: Workspace
    ) -> Tensor:
        """Return again what `step` returned with these inputs; `state` is that after the step.

        Does not change `state`. Each series must have begun.
        """
        ...
