"""The whole network: an encoder of the past, and quantile heads that read the future calendar."""

import copy
import logging

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.inputs.newcomer_prior import NewcomerPrior
from model.inputs.plans import PLAN_INPUT_NAMES
from model.inputs.seasons.calendar import N_CALENDAR, N_HORIZON
from model.inputs.series_inputs import input_names, places_of
from model.inputs.static_features import StaticEmbedding
from model.inputs.unseen_demand import UnseenProductDemand
from model.networks.base import Network, State
from model.networks.gru import GruNetwork
from model.networks.lstm import LstmNetwork
from model.networks.products import has_bfloat16
from model.networks.quantile_heads import QuantileHeads
from model.networks.transformer import TransformerNetwork

log = logging.getLogger(__name__)


def inputs_width(config: ModelConfig) -> int:
    """Inputs of a series: the named ones, then the static embedding."""
    return len(input_names(config)) + config.static


def build_encoder(config: ModelConfig) -> Network:
    """Build the encoder of `config.architecture`. Raises ValueError for an unknown one."""
    hidden, layers = config.hidden, config.layers
    inputs = inputs_width(config)
    match config.architecture:
        case "lstm":
            return LstmNetwork(inputs, N_CALENDAR, hidden=hidden, layers=layers)
        case "gru":
            return GruNetwork(inputs, N_CALENDAR, hidden=hidden, layers=layers)
        case "transformer":
            return TransformerNetwork(
                inputs, N_CALENDAR, hidden=hidden, layers=layers, context=config.context
            )
    raise ValueError(f"unknown architecture {config.architecture!r}")


class QuantileNetwork(nn.Module):
    """Encoder and heads of one `ModelConfig`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Network = build_encoder(config)
        self.heads = QuantileHeads(
            self.encoder.width,
            inputs_width(config),
            N_HORIZON,
            quantiles=config.quantiles,
            rank=config.rank,
            dropout=config.dropout,
            n_plans=len(PLAN_INPUT_NAMES) if config.plans else 0,
            n_targets=len(config.targets),
        )
        self.embedding = StaticEmbedding(config.static) if config.static else None
        self.prior = NewcomerPrior(config) if config.prior else None
        self.unseen = UnseenProductDemand(config) if config.prior else None
        if config.plans:
            self._zero_plan_weights()

    def with_embedding(self, inputs: Tensor, ids_N3: Tensor | None) -> Tensor:
        """Inputs [N, I] or [N, L, I] with the embedding of the series' ids appended."""
        if self.embedding is None or ids_N3 is None:
            return inputs
        embedded: Tensor = self.embedding(ids_N3)
        if inputs.dim() == 3:
            embedded = embedded[:, None].expand(-1, inputs.shape[1], -1)
        return torch.cat((inputs, embedded), dim=-1)

    def _zero_plan_weights(self) -> None:
        """Start with zero weights for plans, so that a kind absent from the data has no effect."""
        columns = torch.tensor(places_of(PLAN_INPUT_NAMES, self.config))
        with torch.no_grad():
            self.encoder.input_weights[:, columns] = 0.0
            self.heads.project.weight[:, self.encoder.width + columns] = 0.0

    def new_state(self, batch: int, device: torch.device) -> State:
        """State of new series."""
        return self.encoder.new_state(batch, device)

    def in_bfloat16(self, device: torch.device) -> "QuantileNetwork":
        """A copy whose steps compute matrix products in bfloat16.

        The network itself, with a warning, on a CPU that has no instructions for it.
        """
        if not has_bfloat16(device):
            log.warning("this CPU has no bfloat16 (model.precision), the network serves in float32")
            return self
        rounded = copy.deepcopy(self)
        rounded.encoder.products = torch.bfloat16
        return rounded

    def prepare(self) -> None:
        """Pack the weights for serving, before threads share them."""
        self.encoder.prepare()

    def forward(
        self,
        inputs_BTI: Tensor,
        calendar_BTC: Tensor,
        state: State,
    ) -> tuple[Tensor, State]:
        """Encode a sequence: [B, T, D] and the state after it."""
        return self.encoder.forward(inputs_BTI, calendar_BTC, state)
