"""A foundation model as a `Forecaster`: it re-reads the history of every series at each forecast.

That makes it a challenger for backtests, verdicts and the batch path; live, one step for each
closed bucket would read thousands of buckets again.

Axes: S = series, T = buckets, F = stored features, H = horizon, L = levels of the model,
Q = quantiles.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import CENSORED_SHARE
from model.contract import FeatureSpec, QuantileForecast
from model.durations import DAY_MS
from model.foundation.sums import at_scores, normal_scores, persistence, sum_quantiles
from model.foundation.weights import Pretrained
from model.inference.forecaster import States, missing_buckets, require_demand
from model.inputs.plans import Plans
from model.quantiles.mean import mean_of_quantiles

Floats = NDArray[np.float32]

#: Series forecast at once.
BATCH: Final = 256
_STOCK: Final = FeatureSpec().index("stock")
_STOCKOUT_SHARE: Final = FeatureSpec().index("stockout_share")


class HistoryStates:
    """The newest `context` buckets of units of every series, NaN where demand is unknown.

    Unknown are the buckets before the first sale of a series, and those it was sold out in.
    """

    def __init__(self, context: int) -> None:
        self.context = context
        self.size = 0
        self.last_ms: int | None = None
        self.units_TS = np.zeros((0, 0), np.float32)
        self.begun_S = np.zeros(0, bool)

    def add(self, values_TSF: Floats) -> None:
        """Append buckets; missing rows are zeros, rows beyond `size` are new series."""
        buckets, rows = values_TSF.shape[:2]
        if rows > self.size:
            new = rows - self.size
            self.units_TS = np.pad(self.units_TS, ((0, 0), (0, new)), constant_values=np.nan)
            self.begun_S = np.pad(self.begun_S, (0, new))
            self.size = rows
        units_TS = np.zeros((buckets, self.size), np.float32)
        units_TS[:, :rows] = values_TSF[:, :, 0]
        begun_TS = np.logical_or.accumulate(units_TS > 0, axis=0) | self.begun_S
        unknown_TS = ~begun_TS
        sold_out_TS = values_TSF[:, :, _STOCKOUT_SHARE] >= CENSORED_SHARE
        unknown_TS[:, :rows] |= (values_TSF[:, :, _STOCK] > 0) & sold_out_TS
        self.begun_S = begun_TS[-1]
        units_TS[unknown_TS] = np.nan
        self.units_TS = np.concatenate((self.units_TS, units_TS))[-self.context :]


class FoundationForecaster:
    """Forecasts of a pretrained model, from the history of each series alone; it ignores plans.

    Deterministic for a `seed`, which draws the paths of `model.foundation.sums`.
    """

    def __init__(
        self, pretrained: Pretrained, model_id: str, *,
        horizon: int, bucket_ms: int, quantiles: tuple[float, ...], seed: int = 7,
    ) -> None:  # fmt: skip
        self.model_id = model_id
        self.horizon = horizon
        self.bucket_ms = bucket_ms
        self.quantiles = quantiles
        self._pretrained = pretrained
        self._seed = seed
        self._season = 7 * DAY_MS // bucket_ms
        self._knots_L = normal_scores(pretrained.levels)
        self._scores_Q = normal_scores(quantiles)

    def new_states(self, capacity: int) -> HistoryStates:
        """States without any series; they grow with the history, up to the model's context."""
        return HistoryStates(self._pretrained.context)

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Append one closed bucket and forecast from its end on; ignores plans.

        A series without any known demand in its context is forecast as zero.
        """
        own = self._append(states, values_SF[None], bucket_start_ms)
        shape = (own.size, self.horizon, len(self.quantiles))
        units_SHQ, sums_SHQ = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        known_S = np.flatnonzero(np.isfinite(own.units_TS).any(axis=0))
        for first in range(0, known_S.size, BATCH):
            chosen_S = known_S[first : first + BATCH]
            units_SHQ[chosen_S], sums_SHQ[chosen_S] = self._forecast(own.units_TS[:, chosen_S])
        return QuantileForecast(
            origin_ms=bucket_start_ms + self.bucket_ms,
            bucket_ms=self.bucket_ms,
            quantiles=self.quantiles,
            units_SHQ=units_SHQ,
            cumulative_SHQ=sums_SHQ,
            mean_SH=mean_of_quantiles(units_SHQ, self.quantiles),
            model_id=self.model_id,
        )

    def warm_up(
        self, states: States, history_TSF: Floats, start_ms: int, plans: Plans | None = None
    ) -> None:
        """Append stored history, oldest bucket first, without forecasting."""
        if history_TSF.shape[0]:
            self._append(states, history_TSF, start_ms)

    def _append(self, states: States, values_TSF: Floats, start_ms: int) -> HistoryStates:
        """Check the input and append it; silent buckets before it are zeros."""
        if not isinstance(states, HistoryStates):
            raise TypeError(f"states of {type(states).__name__} belong to another forecaster")
        require_demand(values_TSF)
        silent = missing_buckets(states.last_ms, start_ms, self.bucket_ms)
        if silent:
            states.add(np.zeros((silent, states.size, values_TSF.shape[2]), np.float32))
        states.add(values_TSF)
        states.last_ms = start_ms + (len(values_TSF) - 1) * self.bucket_ms
        return states

    def _forecast(self, history_TS: Floats) -> tuple[Floats, Floats]:
        """Quantiles [S, H, Q] of units and of their running sums."""
        context_ST = torch.from_numpy(np.ascontiguousarray(history_TS.T))
        made_SHL = self._pretrained.predict(context_ST, self.horizon)
        # a network may let quantiles cross, and forecast below zero
        own_SHL = np.sort(np.maximum(made_SHL.float().cpu().numpy(), 0), axis=2)
        size = (len(own_SHL) * self.horizon, len(self.quantiles))
        scores_NQ = np.broadcast_to(self._scores_Q, size)
        units_NQ = at_scores(own_SHL.reshape(size[0], -1), self._knots_L, scores_NQ)
        units_SHQ = units_NQ.reshape(-1, self.horizon, len(self.quantiles)).astype(np.float32)
        sums_SHQ = sum_quantiles(
            own_SHL,
            units_SHQ,
            persistence(history_TS, season=self._season),
            levels=self._pretrained.levels,
            quantiles=self.quantiles,
            seed=self._seed,
        )
        return units_SHQ, sums_SHQ
