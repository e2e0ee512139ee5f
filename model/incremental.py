"""Incremental inference: the states of all series, one step a closed bucket, no history re-read.

`step` takes the closed bucket of all series of a partition, carries statistics and network state
over it and forecasts the whole horizon. `warm_up` carries the states over stored history without
forecasting. Both run block by block, so that what a block needs stays in the processor's cache.

Axes: S = series, T = buckets, F = stored features, H = horizon, Q = quantiles.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.calendar import calendar_features, horizon_calendar
from model.config import ModelConfig
from model.contract import FEATURE_NAMES, QuantileForecast
from model.errors import InvalidValues
from model.inputs import new_carried, observe
from model.networks.base import State
from model.networks.quantile import QuantileNetwork
from model.scaling import scale_of, started

Floats = NDArray[np.float32]

#: Series stepped at once on a CPU: their states and gates fit its cache.
BLOCK = 1_024
#: A gap between two steps that is longer than this many buckets is an error, not silence.
MAX_GAP = 10_000


class States(Protocol):
    """States of one partition: of `size` series, up to the bucket that starts at `last_ms`."""

    size: int
    last_ms: int | None


@runtime_checkable
class Forecaster(Protocol):
    """What serves forecasts: a network, or a baseline that needs no training."""

    model_id: str
    horizon: int
    quantiles: tuple[float, ...]
    bucket_ms: int

    def new_states(self, capacity: int) -> States:
        """States without any series, with room for `capacity`; they grow by themselves."""
        ...

    def step(self, states: States, values_SF: Floats, bucket_start_ms: int) -> QuantileForecast:
        """Carry `states` over one closed bucket and forecast from its end on.

        Rows beyond `states.size` are new series; missing rows are zeros. Raises InvalidValues for
        values that are no demand, or a bucket that is not after the last one.
        """
        ...

    def warm_up(self, states: States, history_TSF: Floats, start_ms: int) -> None:
        """Carry `states` over stored history, oldest bucket first, without forecasting."""
        ...


def require_demand(values: Floats) -> None:
    """Refuse what is no closed bucket: wrong width, NaN, infinite or negative units.

    >>> require_demand(np.zeros((2, 11), np.float32))
    """
    if values.shape[-1] != len(FEATURE_NAMES):
        raise InvalidValues(f"{values.shape[-1]} feature columns, expected {len(FEATURE_NAMES)}")
    if not np.isfinite(values).all():
        raise InvalidValues("a closed bucket holds NaN or infinite values")
    if values.size and values[..., 0].min() < 0:
        raise InvalidValues("a closed bucket holds negative units")


def missing_buckets(last_ms: int | None, start_ms: int, bucket_ms: int) -> int:
    """Silent buckets between the last one carried and `start_ms`; they are stepped as zeros.

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


class NetworkStates:
    """Carried statistics and network state of all series of a partition, on one device."""

    def __init__(self, network: QuantileNetwork, capacity: int, device: torch.device) -> None:
        self._network = network
        self.device = device
        self.size = 0
        self.last_ms: int | None = None
        self.stats_SK = new_carried(capacity, network.config, device)
        self.state: State = network.new_state(capacity, device)

    @property
    def capacity(self) -> int:
        """Series there is room for."""
        return self.stats_SK.shape[0]

    def grow(self, size: int) -> None:
        """Make room for `size` series; new ones start with nothing."""
        if size > self.capacity:
            extra = max(size, 2 * self.capacity) - self.capacity
            fresh = self._network.new_state(extra, self.device)
            more_SK = new_carried(extra, self._network.config, self.device)
            self.stats_SK = torch.cat((self.stats_SK, more_SK))
            self.state = tuple(
                torch.cat((old, new)) for old, new in zip(self.state, fresh, strict=True)
            )
        self.size = max(self.size, size)

    @property
    def bytes_per_series(self) -> int:
        """Memory of one series' states."""
        tensors = (self.stats_SK, *self.state)
        return sum(t[:1].numel() * t.element_size() for t in tensors)


class NetworkForecaster:
    """A trained network that serves; called from one thread at a time.

    On a CPU, blocks of series are shared out to `threads` threads (default: as many as torch would
    use), each running plain single-threaded kernels: no thread waits for another within a step.
    """

    def __init__(
        self,
        network: QuantileNetwork,
        model_id: str,
        device: torch.device | str = "cpu",
        *,
        threads: int | None = None,
    ) -> None:
        self.model_id = model_id
        self.config: ModelConfig = network.config
        self.horizon = self.config.horizon
        self.quantiles = self.config.quantiles
        self.bucket_ms = self.config.bucket_ms
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self._pool = ThreadPoolExecutor(
            threads or torch.get_num_threads(),
            thread_name_prefix="forecast",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    def new_states(self, capacity: int) -> NetworkStates:
        """States without any series, with room for `capacity`."""
        with torch.inference_mode():
            return NetworkStates(self.network, max(capacity, 1), self.device)

    def step(self, states: States, values_SF: Floats, bucket_start_ms: int) -> QuantileForecast:
        """Carry `states` over one closed bucket and forecast from its end on."""
        with torch.inference_mode():
            mine = self._advance(states, values_SF, bucket_start_ms)
            values = self._tensor(values_SF, mine.size)
            origin_ms = bucket_start_ms + self.bucket_ms
            shape = (mine.size, self.horizon, len(self.quantiles))
            units_SHQ = torch.empty(shape, device=self.device)
            sums_SHQ = torch.empty(shape, device=self.device)
            # in the pool too: a kernel spread over threads here would spin against the blocks
            weights = self._pool.submit(self._head_weights, origin_ms).result()
            calendar_C = self._calendar(bucket_start_ms, 1)[0]

            def forecast(block: slice) -> None:
                encoded, inputs = self._carry(
                    mine, values[block], bucket_start_ms, calendar_C, block
                )
                scale_B = scale_of(mine.stats_SK[block], floor=self.config.scale_floor)
                out = units_SHQ[block], sums_SHQ[block]
                self.network.heads.serve(encoded, inputs, weights, scale_B, out)

            self._for_blocks(mine.size, forecast)
            mine.last_ms = bucket_start_ms
            return QuantileForecast(
                origin_ms=origin_ms,
                bucket_ms=self.bucket_ms,
                quantiles=self.quantiles,
                units_SHQ=units_SHQ.cpu().numpy(),
                cumulative_SHQ=sums_SHQ.cpu().numpy(),
                model_id=self.model_id,
            )

    def warm_up(self, states: States, history_TSF: Floats, start_ms: int) -> None:
        """Carry `states` over stored history, oldest bucket first, without forecasting."""
        buckets = history_TSF.shape[0]
        if buckets == 0:
            return
        with torch.inference_mode():
            mine = self._advance(states, history_TSF, start_ms)
            calendar_TC = self._calendar(start_ms, buckets)

            def carry(block: slice) -> None:
                part_TSF = history_TSF[:, block]
                for t in range(buckets):
                    values = self._tensor(part_TSF[t], block.stop - block.start)
                    self._carry(mine, values, start_ms + t * self.bucket_ms, calendar_TC[t], block)

            self._for_blocks(mine.size, carry)
            mine.last_ms = start_ms + (buckets - 1) * self.bucket_ms

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

    def _for_blocks(self, size: int, work: Callable[[slice], None]) -> None:
        """Do `work` for every block of series; all at once on a GPU."""
        step = BLOCK if self.device.type == "cpu" else max(size, 1)
        blocks = [slice(first, min(first + step, size)) for first in range(0, size, step)]

        def inferring(block: slice) -> None:
            with torch.inference_mode():
                work(block)

        self.network.prepare()
        for _ in self._pool.map(inferring, blocks):
            pass

    def _carry(
        self,
        states: NetworkStates,
        values: Tensor,
        start_ms: int,
        calendar_C: Tensor,
        block: slice,
    ) -> tuple[Tensor, Tensor]:
        """One step of statistics and network for a block: encodings [B, D] and inputs [B, I]."""
        stats_SK = states.stats_SK[block]
        inputs = observe(stats_SK, values, start_ms, self.config)
        state = tuple(part[block] for part in states.state)
        encoded = self.network.encoder.step(inputs, calendar_C, state)
        waiting = ~started(stats_SK)
        if bool(waiting.any()):  # a series begins with its first activity, not before
            for part in state:
                part[waiting] = 0
        return encoded, inputs

    def _tensor(self, values: Floats, size: int) -> Tensor:
        """Values [size, F] on the device; missing rows are zeros."""
        rows = values.shape[0]
        if rows < size:
            values = np.concatenate((values, np.zeros((size - rows, values.shape[1]), np.float32)))
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)

    def _calendar(self, start_ms: int, buckets: int) -> Tensor:
        starts = start_ms + self.bucket_ms * np.arange(buckets, dtype=np.int64)
        features = calendar_features(
            starts, bucket_ms=self.bucket_ms, country=self.config.holidays_country
        )
        return torch.from_numpy(features).to(self.device)

    def _head_weights(self, origin_ms: int) -> Tensor:
        horizon_1HC = horizon_calendar(
            np.array([origin_ms], np.int64),
            horizon=self.horizon,
            bucket_ms=self.bucket_ms,
            country=self.config.holidays_country,
        )
        with torch.inference_mode():
            weights = self.network.heads.written(torch.from_numpy(horizon_1HC).to(self.device))
            return weights[0].flatten(2).contiguous()
