"""How all series of a partition are stepped on a CPU: in blocks, shared out to threads.

Chunks of series are shared out to threads that run plain single-threaded kernels, so no thread
waits for another within a step. A chunk is observed whole, since that is a hundred small operations
whose cost lies in calling them; the network runs over it in blocks that stay in the cache.
`model/inference/cuda_graph_stepper.py` is the same for a GPU.

Axes: S = series, B = series of a block, T = buckets, F = features, C = calendar, H = horizon,
Q = quantiles, N = series with a plan, P = plan columns, E = what is read of plans.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.inference.network_states import NetworkStates
from model.inputs.carried_statistics import started
from model.inputs.plans import Plans, ahead, held, planned_rows
from model.inputs.series_inputs import observe
from model.inputs.static_features import ids_of
from model.inputs.targets import scales_of
from model.networks.quantile_network import QuantileNetwork
from model.workspace import Workspace

Floats = NDArray[np.float32]

#: Most series a thread takes at once.
CHUNK: Final = 4_096
#: Series the network steps at once: their states, gates and forecasts fit a core's cache.
BLOCK: Final = 1_024


class Stepper(Protocol):
    """Carries states over closed buckets, in inference mode; bucket t starts at ``start_ms_T[t]``.

    Values have a row for each of the states' series. Plans are None, or cover the buckets carried
    over and, behind them, those forecast.
    """

    def carry(
        self, states: NetworkStates, values_TSF: Floats, start_ms_T: list[int],
        calendar_TC: Tensor, *, plans: Plans | None = None,
    ) -> None:  # fmt: skip
        """Carry over T buckets without forecasting."""
        ...

    def forecast(
        self, states: NetworkStates, values_SF: Floats, start_ms: int, calendar_C: Tensor,
        horizon_HC: Tensor, *, plans: Plans | None = None,
    ) -> tuple[Floats, ...]:  # fmt: skip
        """Carry over one bucket; each block of the heads [S, H, Q] from its end on."""
        ...


class BlockStepper:
    """Steps on a CPU, `threads` chunks at a time."""

    def __init__(self, network: QuantileNetwork, threads: int | None = None) -> None:
        self._network = network
        self._own = local()
        self._threads = threads or torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            self._threads,
            thread_name_prefix="forecast",
            initializer=self._begin_thread,
        )

    def _begin_thread(self) -> None:
        torch.set_num_threads(1)
        self._own.work = Workspace()

    def carry(
        self, states: NetworkStates, values_TSF: Floats, start_ms_T: list[int],
        calendar_TC: Tensor, *, plans: Plans | None = None,
    ) -> None:  # fmt: skip
        """Carry over T buckets without forecasting."""

        def carry(chunk: slice) -> None:
            for t, (values_SF, start_ms, calendar_C) in enumerate(
                zip(values_TSF[:, chunk], start_ms_T, calendar_TC, strict=True)
            ):
                plans_SP = held(plans, t, chunk)
                self._step(states, values_SF, start_ms, calendar_C, chunk=chunk, plans_SP=plans_SP)

        self._share_out(states.size, carry)

    def forecast(
        self, states: NetworkStates, values_SF: Floats, start_ms: int, calendar_C: Tensor,
        horizon_HC: Tensor, *, plans: Plans | None = None,
    ) -> tuple[Floats, ...]:  # fmt: skip
        """Carry over one bucket; each block of the heads [S, H, Q] from its end on."""
        config = self._network.config
        shape = (states.size, config.horizon, len(config.quantiles))
        # numpy asks for huge pages, torch does not: a quarter of the page faults' time
        blocks = tuple(np.empty(shape, np.float32) for _ in range(self._network.heads.blocks))
        # in the pool too: a kernel spread over threads here would spin against the chunks
        weights = self._pool.submit(head_weights, self._network, horizon_HC).result()
        out = tuple(torch.from_numpy(block_SHQ) for block_SHQ in blocks)
        served = _Served(weights, out, ahead(plans))

        def forecast(chunk: slice) -> None:
            self._step(
                states, values_SF[chunk], start_ms, calendar_C,
                chunk=chunk, plans_SP=held(plans, 0, chunk), served=served,
            )  # fmt: skip

        self._share_out(states.size, forecast)
        return blocks

    def _share_out(self, size: int, work: Callable[[slice], None]) -> None:
        chunks = even_chunks(size, largest=CHUNK, threads=self._threads)

        def inferring(chunk: slice) -> None:
            with torch.inference_mode():
                work(chunk)

        self._network.prepare()
        for _ in self._pool.map(inferring, chunks):
            pass

    def _step(
        self,
        states: NetworkStates,
        values_SF: Floats,
        start_ms: int,
        calendar_C: Tensor,
        *,
        chunk: slice,
        plans_SP: Tensor | None,
        served: "_Served | None" = None,
    ) -> None:
        """One bucket of one chunk; with `served`, forecasts from its end on as well."""
        network, work = self._network, self._own.work
        stats_SK = states.stats_SK[chunk]
        values = torch.from_numpy(np.ascontiguousarray(values_SF, np.float32))
        config = network.config
        inputs_SI = observe(
            stats_SK, values, start_ms, config, prior=network.prior, plans_SP=plans_SP
        )
        inputs_SI = network.told(inputs_SI, ids_of(stats_SK, config))
        scales = scales_of(stats_SK, config)
        waiting_S = ~started(stats_SK)
        some_wait = bool(waiting_S.any())
        for first in range(0, stats_SK.shape[0], BLOCK):
            rows = slice(first, min(first + BLOCK, stats_SK.shape[0]))
            at = slice(chunk.start + rows.start, chunk.start + rows.stop)
            state = tuple(part[at] for part in states.state)
            inputs_BI = inputs_SI[rows]
            encoded_BD = network.encoder.step(inputs_BI, calendar_C, state, work)
            if some_wait:  # a series begins with its first activity, not before
                for part in state:
                    part[waiting_S[rows]] = 0
            if served is not None:
                out = tuple(block_SHQ[at] for block_SHQ in served.out)
                planned = planned_rows(served.plans, stats_SK[rows], at)
                network.heads.serve(
                    encoded_BD, inputs_BI, served.weights,
                    tuple(scale_S[rows] for scale_S in scales), out,
                    work=work, planned=planned,
                )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Served:
    """What a forecasting step reads beside the states, and where it writes [S, H, Q]."""

    weights: Tensor
    out: tuple[Tensor, ...]
    plans: Plans | None


def even_chunks(size: int, *, largest: int, threads: int) -> list[slice]:
    """Chunks of about equal size, as many for each thread, so that none waits for the last one.

    >>> even_chunks(10, largest=6, threads=2)
    [slice(0, 5, None), slice(5, 10, None)]
    >>> even_chunks(0, largest=6, threads=2)
    []
    """
    rounds = -(-size // (largest * threads))
    step = -(-size // max(1, rounds * threads))
    return [slice(first, min(first + step, size)) for first in range(0, size, max(step, 1))]


def head_weights(network: QuantileNetwork, horizon_HC: Tensor) -> Tensor:
    """What the calendar of one origin's horizon writes, as `heads.serve` takes it."""
    with torch.inference_mode():
        return network.heads.written(horizon_HC[None])[0].flatten(2).contiguous()
