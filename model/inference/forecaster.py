"""Incremental inference: one step of all series for each closed bucket, without re-reading history.

`step` takes the closed bucket of all series of a partition, carries statistics and network state
over it and forecasts the whole horizon. `warm_up` carries the states over stored history without
forecasting. The steppers for CPU and GPU are in `model/inference/cpu_stepper.py` and
`model/inference/cuda_graph_stepper.py`.

Axes: S = series, T = buckets, F = stored features, H = horizon, Q = quantiles.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import ModelConfig
from model.contract import FEATURE_NAMES, QuantileForecast
from model.contributions import Explanations
from model.errors import InvalidValues
from model.inference.cpu_stepper import BlockStepper, Stepper
from model.inference.cuda_graph_stepper import FixedShapeStepper
from model.inference.explanation import NewestStep, explain
from model.inference.network_states import NetworkStates, restore_states
from model.inputs.carried_statistics import started
from model.inputs.plans import Plans
from model.inputs.seasons.calendar import calendar_features, horizon_calendar
from model.networks.quantile_levels import PublishedLevels
from model.networks.quantile_network import QuantileNetwork

Floats = NDArray[np.float32]

#: A gap of more buckets between two steps is an error, not silence.
MAX_GAP = 10_000


class States(Protocol):
    """States of the `size` series of one partition, up to the bucket that starts at `last_ms`."""

    size: int
    last_ms: int | None


@runtime_checkable
class Forecaster(Protocol):
    """A model that serves forecasts: a network, or a baseline without training."""

    model_id: str
    horizon: int
    quantiles: tuple[float, ...]
    bucket_ms: int

    def new_states(self, capacity: int) -> States:
        """States without any series, with room for `capacity`; they grow automatically."""
        ...

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Carry `states` over one closed bucket and forecast from its end on.

        `plans` are those of the closed bucket, then of the horizon; None for none, and a forecaster
        may ignore them. Rows beyond `states.size` are new series; missing rows are zeros. Raises
        InvalidValues for invalid demand, or a bucket that is not after the last one.
        """
        ...

    def warm_up(
        self, states: States, history_TSF: Floats, start_ms: int, plans: Plans | None = None
    ) -> None:
        """Carry `states` over stored history, oldest bucket first, without forecasting.

        `plans` are those of the same buckets.
        """
        ...


def require_demand(values: Floats) -> None:
    """Check a closed bucket. Raises InvalidValues: wrong width, NaN, infinite or negative units.

    >>> require_demand(np.zeros((2, 11), np.float32))
    """
    if values.shape[-1] != len(FEATURE_NAMES):
        raise InvalidValues(f"{values.shape[-1]} feature columns, expected {len(FEATURE_NAMES)}")
    if not np.isfinite(values).all():
        raise InvalidValues("a closed bucket contains NaN or infinite values")
    if values.size and values[..., 0].min() < 0:
        raise InvalidValues("a closed bucket contains negative units")


def missing_buckets(last_ms: int | None, start_ms: int, bucket_ms: int) -> int:
    """Count the silent buckets between the last carried one and `start_ms`; they count as zeros.

    Raises InvalidValues for a bucket that is not after the last one, or not on its grid.

    >>> missing_buckets(0, 180_000, 60_000)
    2
    """
    if last_ms is None:
        return 0
    gap, off_grid = divmod(start_ms - last_ms, bucket_ms)
    if off_grid or not 1 <= gap <= MAX_GAP:
        raise InvalidValues(
            f"bucket {start_ms} does not follow {last_ms} in buckets of {bucket_ms} ms"
        )
    return gap - 1


class NetworkForecaster:
    """A trained network that serves; called from one thread at a time.

    On a CPU, chunks of series are spread over `threads` threads (default: torch's number); on a GPU
    every step has one fixed shape. `quantiles` are the levels to publish (default: the network's
    own). With `rounded` the matrix products of a step are in bfloat16, if the device has it.
    `stepper` overrides the choice of stepper.
    """

    def __init__(
        self,
        network: QuantileNetwork,
        model_id: str,
        device: torch.device | str = "cpu",
        *,
        quantiles: tuple[float, ...] | None = None,
        threads: int | None = None,
        rounded: bool = False,
        stepper: Callable[[QuantileNetwork, PublishedLevels, torch.device], Stepper] | None = None,
    ) -> None:
        self.model_id = model_id
        self.config: ModelConfig = network.config
        self.horizon = self.config.horizon
        self.quantiles = quantiles or self.config.quantiles
        self.bucket_ms = self.config.bucket_ms
        self.device = torch.device(device)
        network = network.in_bfloat16(self.device) if rounded else network
        self.network = network.to(self.device).eval().requires_grad_(False)
        self._levels = levels = PublishedLevels.of(self.config.quantiles, self.quantiles)
        self._stepper: Stepper
        if stepper is not None:
            self._stepper = stepper(self.network, levels, self.device)
        elif self.device.type == "cpu":
            self._stepper = BlockStepper(self.network, levels, threads)
        else:
            self._stepper = FixedShapeStepper(self.network, levels, self.device)

    def new_states(self, capacity: int) -> NetworkStates:
        """States without any series, with room for `capacity`."""
        with torch.inference_mode():
            return NetworkStates(self.network, max(capacity, 1), self.device)

    def restore(self, snapshot: bytes) -> NetworkStates:
        """The states of a snapshot of this model, bit for bit.

        Raises IncompatibleCheckpoint for a snapshot of another model, CorruptCheckpoint for a
        damaged one.
        """
        with torch.inference_mode():
            return restore_states(snapshot, self.network, self.model_id, self.device)

    def step(
        self, states: States, values_SF: Floats, bucket_start_ms: int, plans: Plans | None = None
    ) -> QuantileForecast:
        """Carry `states` over one closed bucket and forecast from its end on."""
        with torch.inference_mode():
            own = self._advance(states, values_SF, bucket_start_ms)
            origin_ms = bucket_start_ms + self.bucket_ms
            units_SHQ, sums_SHQ, *targets, mean_SH = self._stepper.forecast(
                own,
                _all_rows(values_SF, own.size),
                bucket_start_ms,
                self._calendar(bucket_start_ms, 1)[0],
                self._horizon_calendar(origin_ms),
                plans=self._known_plans(plans, 1 + self.horizon, own.size),
            )
            if self.network.unseen is not None:
                self.network.unseen.write(
                    own.stats_SK, own.launch_day_S,
                    origin_ms=origin_ms, units_SHQ=units_SHQ, sums_SHQ=sums_SHQ, mean_SH=mean_SH,
                    weights_LQ=self._levels.weights.numpy(),
                )  # fmt: skip
            own.last_ms = bucket_start_ms
            return QuantileForecast(
                origin_ms=origin_ms,
                bucket_ms=self.bucket_ms,
                quantiles=self.quantiles,
                units_SHQ=units_SHQ,
                cumulative_SHQ=sums_SHQ,
                mean_SH=mean_SH,
                model_id=self.model_id,
                extras=dict(zip(self.config.targets, targets, strict=True)),
            )

    def warm_up(
        self, states: States, history_TSF: Floats, start_ms: int, plans: Plans | None = None
    ) -> None:
        """Carry `states` over stored history, oldest bucket first, without forecasting."""
        buckets = history_TSF.shape[0]
        if buckets == 0:
            return
        with torch.inference_mode():
            own = self._advance(states, history_TSF, start_ms)
            starts = [start_ms + t * self.bucket_ms for t in range(buckets)]
            values_TSF = _all_rows(history_TSF, own.size)
            calendar_TC = self._calendar(start_ms, buckets)
            known = self._known_plans(plans, buckets, own.size)
            self._stepper.carry(own, values_TSF, starts, calendar_TC, plans=known)
            own.last_ms = starts[-1]

    def explain(
        self, states: States, values_SF: Floats, rows_N: NDArray[np.int64], plans: Plans | None
    ) -> tuple[NDArray[np.int64], Explanations]:
        """Explain the newest forecasts of some rows of the states; returns the rows explained.

        `values_SF` and `plans` are those of the step. A row that has not begun is left out: the
        forecast of an unseen product is not the network's.
        """
        if not isinstance(states, NetworkStates) or states.last_ms is None:
            raise TypeError("only states after a step of this forecaster can be explained")
        with torch.inference_mode():
            rows_N = np.unique(rows_N[rows_N < states.size])
            begun_N = started(states.stats_SK[torch.from_numpy(rows_N).to(self.device)])
            rows_N = rows_N[begun_N.cpu().numpy()]
            at_N = torch.from_numpy(rows_N).to(self.device)
            known = self._known_plans(plans, 1 + self.horizon, states.size)
            plans_TNP = None if known is None else known.chosen(rows_N).dense(len(rows_N))
            newest = NewestStep(
                stats_SK=states.stats_SK[at_N],
                state=tuple(part[at_N] for part in states.state),
                values_SF=torch.from_numpy(_all_rows(values_SF, states.size)[rows_N]).to(
                    self.device
                ),
                start_ms=states.last_ms,
                calendar_C=self._calendar(states.last_ms, 1)[0].to(self.device),
                horizon_HC=self._horizon_calendar(states.last_ms + self.bucket_ms).to(self.device),
                plans_STP=None
                if plans_TNP is None
                else torch.from_numpy(plans_TNP.swapaxes(0, 1).copy()).to(self.device),
            )
            return rows_N, explain(self.network, newest)

    def _advance(self, states: States, values: Floats, start_ms: int) -> NetworkStates:
        """Check the input, step over silent buckets, make room for new series."""
        if not isinstance(states, NetworkStates):
            raise TypeError(f"states of {type(states).__name__} belong to another forecaster")
        require_demand(values)
        silent = missing_buckets(states.last_ms, start_ms, self.bucket_ms)
        if silent and states.size:
            nothing = np.zeros((silent, states.size, len(FEATURE_NAMES)), np.float32)
            states.last_ms = None
            self.warm_up(states, nothing, start_ms - silent * self.bucket_ms)
        states.grow(values.shape[-2])
        return states

    def _known_plans(self, plans: Plans | None, buckets: int, size: int) -> Plans | None:
        """The plans of the first `buckets` buckets, for existing series; None if unused."""
        if plans is None or not self.config.plans or not plans.rows_N.size:
            return None
        known = int(np.searchsorted(plans.rows_N, size))
        return Plans(plans.rows_N[:known], plans.values_TNP[:, :known]).between(0, buckets)

    def _horizon_calendar(self, origin_ms: int) -> Tensor:
        made_1HC = horizon_calendar(
            np.array([origin_ms]),
            horizon=self.horizon,
            bucket_ms=self.bucket_ms,
            country=self.config.holidays_country,
            year_terms=self.config.year_terms,
            timezone=self.config.timezone,
        )
        return torch.from_numpy(made_1HC[0])

    def _calendar(self, start_ms: int, buckets: int) -> Tensor:
        starts = start_ms + self.bucket_ms * np.arange(buckets, dtype=np.int64)
        return torch.from_numpy(
            calendar_features(
                starts,
                bucket_ms=self.bucket_ms,
                country=self.config.holidays_country,
                year_terms=self.config.year_terms,
                timezone=self.config.timezone,
            )
        )


def _all_rows(values: Floats, size: int) -> Floats:
    """Values [..., size, F]; missing rows are zeros."""
    rows = values.shape[-2]
    if rows == size:
        return values
    missing = np.zeros((*values.shape[:-2], size - rows, values.shape[-1]), np.float32)
    return np.concatenate((values, missing), axis=-2)
