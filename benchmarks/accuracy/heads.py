"""A distribution head against the quantile heads: the same encoder, series, updates and seed.

    python -m benchmarks.accuracy.heads --orders orders_online_retail_II.parquet

Daily task, tuning origins. The head gives the logarithms of the mean and of the shape of a negative
binomial for each step ahead, trained by the likelihood of the counts given the scale; its forecasts
are the quantiles of the distribution. Needs scipy (extra `benchmarks`).

Origins are weighted as in the quantile heads (by scale / mean demand) or equally; quantiles are the
integers of the inverse distribution function, or interpolated between them. Writes
`results/heads-daily-tune.jsonl`.

Axes: B = series, O = origins, P = origins of a chunk, H = horizon, Q = quantiles, R = rank.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy.ours import Surgecast, configured
from benchmarks.accuracy.problem import OriginForecast, Problem
from benchmarks.accuracy.run import RESULTS
from benchmarks.accuracy.scoring.results import TaskResult, write
from benchmarks.accuracy.scoring.scores import Truth
from benchmarks.accuracy.tasks import daily, read_lines
from model.config import ModelConfig
from model.inputs.anchors import Anchors
from model.inputs.seasons.calendar import N_HORIZON
from model.inputs.series_inputs import input_names
from model.networks.quantile_heads import QuantileHeads
from model.networks.quantile_levels import PublishedLevels
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import Chunk, TrainingSeries
from model.training.lanes import origins_first
from model.training.losses import masked_mean
from model.training.ranks import Ranks
from model.workspace import Workspace

#: Bounds of the logarithms of the mean (in multiples of the scale) and of the shape.
MEAN: Final = (-12.0, 5.0)
SHAPE: Final = (-6.0, 8.0)


def count_loss(units: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """Negative log-likelihood of counts under a negative binomial; variance = m + m² / shape.

    Any shape [...], in double precision: lgamma of hundreds leaves few digits in single.

    >>> from scipy.stats import nbinom
    >>> loss = count_loss(torch.tensor(300.0), torch.tensor(5.0), torch.tensor(-1.0))
    >>> shape, mean = np.exp(-1.0), np.exp(5.0)
    >>> bool(np.isclose(float(loss), -nbinom.logpmf(300, shape, shape / (shape + mean))))
    True
    """
    units, log_mean, log_shape = units.double(), log_mean.double(), log_shape.double()
    shape = log_shape.exp()
    log_both = torch.logaddexp(log_mean, log_shape)
    chosen = torch.lgamma(units + shape) - torch.lgamma(shape) - torch.lgamma(units + 1)
    return -(chosen + shape * (log_shape - log_both) + units * (log_mean - log_both))


def count_quantiles(
    mean_BH: NDArray[Any], shape_BH: NDArray[Any], quantiles: tuple[float, ...], *, whole: bool
) -> NDArray[np.float64]:
    """Quantiles [B, H, Q] of a negative binomial: integers, or linear in between.

    In between, the probability of k is spread over k − ½ … k + ½, cut at 0.

    >>> count_quantiles(np.array([[8.0]]), np.array([[1e6]]), (0.5, 0.9), whole=True)
    array([[[ 8., 12.]]])
    """
    from scipy.stats import nbinom

    shape = shape_BH.astype(np.float64)[..., None]
    law = nbinom(shape, shape / (shape + mean_BH[..., None]))
    wanted_Q = np.array(quantiles)
    counts: NDArray[np.float64] = law.ppf(wanted_Q)
    if whole:
        return counts
    below, up_to = law.cdf(counts - 1), law.cdf(counts)
    share = (wanted_Q - below) / np.maximum(up_to - below, 1e-12)
    return np.maximum(counts - 0.5 + share, 0)


class CountHeads(QuantileHeads):
    """Mean and shape of a negative binomial for each step, by the same calendar weights."""

    whole = True

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__(
            width,
            len(input_names(config)),
            N_HORIZON,
            quantiles=(0.5, 0.9),  # two numbers a step
            rank=config.rank,
            dropout=config.dropout,
        )
        with torch.no_grad():  # the mean starts at the scale, the shape at 1
            self.write.bias.view(self.rank + 1, 2, 2)[-1].zero_()

    def forward(
        self,
        encoded_OBD: Tensor,
        inputs_OBI: Tensor,
        horizon_OHC: Tensor,
        anchors: Anchors | None = None,
        plans_OBHE: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logarithms [O, B, H] of the mean in multiples of the scale, and of the shape.

        It reads no anchors.
        """
        code_OBR = self.code(encoded_OBD, inputs_OBI)
        weights = self.horizon_weights(horizon_OHC)[:, :, 0].flatten(2)
        return self._split(torch.baddbmm(weights[:, -1:], code_OBR, weights[:, :-1]))

    def serve(
        self,
        encoded_BD: Tensor,
        inputs_BI: Tensor,
        weights: Tensor,
        scales: tuple[Tensor, ...],
        out: tuple[Tensor, ...],
        *,
        mean_BH: Tensor,
        level_B: Tensor | None = None,
        anchors: Anchors,
        work: Workspace,
        levels: PublishedLevels,
        planned: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Write the quantiles of units into the first of `out`; those of their sum stay zero.

        The task has no plans.
        """
        code_BR = self.code(encoded_BD, inputs_BI)
        log_mean_BH, log_shape_BH = self._split(
            torch.addmm(weights[-1, 0], code_BR, weights[:-1, 0])
        )
        torch.mul(log_mean_BH.exp(), scales[0][:, None], out=mean_BH)
        shape_BH = log_shape_BH.exp().numpy()
        block = count_quantiles(mean_BH.numpy(), shape_BH, levels.quantiles, whole=self.whole)
        out[0].copy_(torch.from_numpy(block))
        out[1].zero_()

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        log_mean, log_shape = flat.unflatten(-1, (-1, 2)).unbind(-1)
        return log_mean.clamp(*MEAN), log_shape.clamp(*SHAPE)


class CountNetwork(QuantileNetwork):
    """The product's encoder with `CountHeads`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.heads = CountHeads(self.encoder.width, config)


def count_loss_at(
    *,
    network: QuantileNetwork,
    picked: TrainingSeries,
    chunk: Chunk,
    encoded_NLD: Tensor,
    positions_P: NDArray[np.int64],
    quantiles_Q: Tensor,
    cumulative_weight: float,
    target_weight: float = 0.0,
    ranks: Ranks | None = None,
    equal_weights: bool = False,
) -> Tensor:
    """Replaces `model.training.lanes.loss_at`: the likelihood of the counts."""
    horizon, groups = network.config.horizon, len(chunk.first_G)
    positions = torch.from_numpy(positions_P)
    by_origin = partial(origins_first, groups=groups)
    log_mean, log_shape = network.heads(
        by_origin(encoded_NLD[:, positions]),
        by_origin(chunk.inputs_NLI[:, positions]),
        picked.horizon_calendar(chunk.first_G, positions_P),
    )
    reach_PH = positions[:, None] + torch.arange(horizon)
    log_scale = by_origin(chunk.scale_NL[:, positions]).log().unsqueeze(-1)
    weight = by_origin(chunk.weight_NL[:, positions]).unsqueeze(-1)
    if equal_weights:
        weight = (weight > 0).float()
    loss = count_loss(by_origin(chunk.ahead_NX[:, reach_PH]), log_mean + log_scale, log_shape)
    return masked_mean(loss.float(), by_origin(chunk.known_NX[:, reach_PH]) * weight)


@contextmanager
def counting(*, equal_weights: bool) -> Iterator[None]:
    """Train and serve with `CountNetwork` instead of the product's network."""

    def loss_at(**given: Any) -> Tensor:
        return count_loss_at(**given, equal_weights=equal_weights)

    with (
        patch("model.training.lanes.loss_at", loss_at),
        patch("model.training.run.loss_at", loss_at),
        patch("model.training.train.QuantileNetwork", CountNetwork),
        patch("benchmarks.accuracy.ours.QuantileNetwork", CountNetwork),
    ):
        yield


def main() -> None:
    """Train each variant once, forecast the tuning origins, write a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--work", type=Path, default=Path("var/accuracy"))
    arguments = parser.parse_args()
    task = daily(read_lines(arguments.orders))
    problem = Problem(task, task.tune_origins_ms)
    config = configured(problem, seed=arguments.seed, overrides={"pretrained": False})

    def forecasts(name: str) -> list[OriginForecast]:
        folder = arguments.work / f"heads-seed-{arguments.seed}" / name
        folder.mkdir(parents=True, exist_ok=True)
        peer = Surgecast(problem, folder, config)
        return [peer.forecast(place) for place in problem.places]

    made = {"quantile heads": forecasts("quantile")}
    for equal_weights, weighted in ((False, "weighted as those"), (True, "origins alike")):
        for whole, how in ((True, "whole"), (False, "interpolated")):
            with counting(equal_weights=equal_weights), patch.object(CountHeads, "whole", whole):
                folder = f"negative-binomial-{'alike' if equal_weights else 'weighted'}"
                made[f"negative binomial, {weighted}, {how}"] = forecasts(folder)
    result = TaskResult(task.name, Truth.of(problem))
    for name, each in made.items():
        result.add(name, each)
        print(f"{name:40} WQL {result.wql(name, 'sku'):.4f}")
    write(result, RESULTS / "heads-daily-tune.jsonl")


if __name__ == "__main__":
    main()
