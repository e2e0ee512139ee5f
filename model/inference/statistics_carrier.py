"""Carries statistics over old buckets without a network: what a model may inherit, from scratch.

A hundredth of a second for ten thousand series and a bucket: a tenth of what a network takes.

Axes: T = buckets, S = series, F = features.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import ModelConfig
from model.inference.network_states import dump_statistics
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import carry_statistics, new_carried


class StatisticsCarrier:
    """Statistics of `size` series, from the first carried bucket on."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        self._config = replace(config, static=0, prior=False)
        self._stats_SI = new_carried(size, self._config)

    def carry(self, values_TSF: NDArray[np.float32], start_ms: int) -> None:
        """Carry them over the next closed buckets, the first of which starts at `start_ms`."""
        config = self._config
        starts = start_ms + config.bucket_ms * torch.arange(len(values_TSF))
        layout, country = layout_of(config.bucket_ms), config.holidays_country
        phases = layout.buckets(starts, country, timezone=config.timezone)
        with torch.inference_mode():
            for t, values in enumerate(torch.from_numpy(values_TSF)):
                carry_statistics(self._stats_SI, values, phases.at(t), config)

    @property
    def rows_SI(self) -> Tensor:
        """The statistics [S, I], for `NetworkStates.inherit`."""
        return self._stats_SI

    def snapshot(self) -> bytes:
        """The statistics as bytes, for `network_states.read_statistics`."""
        return dump_statistics(self._stats_SI, self._config)
