"""Steps all series of a partition on a CPU, in blocks spread over threads.

Threads take chunks of series and run single-threaded kernels, so no thread waits for another within
a step. `observe` runs once for a whole chunk, because it is a hundred small operations dominated by
call overhead; the network runs over the chunk in blocks that fit the cache.
`model/inference/cuda_graph_stepper.py` is the equivalent for a GPU.

Axes: S = series, B = series of a block, T = buckets, F = features, C = calendar, H = horizon, Q =
quantiles, N = series with a plan, P = plan columns, E = plan inputs.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from threading import local
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.inference.network_states import NetworkStates
from model.inputs.anchors import anchors_of
from model.inputs.carried_statistics import started
from model.inputs.newcomer_prior import level_of
from model.inputs.plans import Plans, planned_rows, plans_ahead, plans_at
from model.inputs.seasons.season_layout import BucketPhases, HorizonPhases, layout_of
from model.inputs.series_inputs import observe
from model.inputs.static_features import ids_of
from model.inputs.targets import scales_of
from model.networks.quantile_levels import PublishedLevels
from model.networks.quantile_network import QuantileNetwork
from model.workspace import Workspace

Floats = NDArray[np.float32]

#: Maximum series of a chunk.
CHUNK: Final = 4_096
#: Series of a network step: their states, gates and forecasts fit a core's cache.
BLOCK: Final = 2_048


class Stepper(Protocol):
    """Carries states over closed buckets, in inference mode; bucket t starts at ``start_ms_T[t]``.

    Values have a row for each series of the states. Plans are None, or cover the carried buckets
    followed by the horizon.
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
        """Carry over one bucket; forecast from its end on: blocks [S, H, Q], mean [S, H]."""
        ...


class BlockStepper:
    """Steps on a CPU, `threads` chunks at a time."""

    def __init__(
        self, network: QuantileNetwork, levels: PublishedLevels, threads: int | None = None
    ) -> None:
        self._network = network
        self._levels = levels
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
        config = self._network.config
        layout = layout_of(config.bucket_ms)
        starts_T = torch.tensor(start_ms_T)
        phases = layout.buckets(starts_T, config.holidays_country, timezone=config.timezone)

        def carry(chunk: slice) -> None:
            for t, (values_SF, calendar_C) in enumerate(
                zip(values_TSF[:, chunk], calendar_TC, strict=True)
            ):
                plans_SP = plans_at(plans, t, chunk)
                self._step(
                    states, values_SF, phases.at(t), calendar_C, chunk=chunk, plans_SP=plans_SP
                )

        self._run_chunks(states.size, carry)

    def forecast(
        self, states: NetworkStates, values_SF: Floats, start_ms: int, calendar_C: Tensor,
        horizon_HC: Tensor, *, plans: Plans | None = None,
    ) -> tuple[Floats, ...]:  # fmt: skip
        """Carry over one bucket; forecast from its end on: blocks [S, H, Q], mean [S, H]."""
        config = self._network.config
        shape = (states.size, config.horizon, len(self._levels.quantiles))
        # numpy uses huge pages, torch does not: a quarter of the time in page faults
        blocks = tuple(np.empty(shape, np.float32) for _ in range(self._network.heads.blocks))
        mean_SH = np.empty(shape[:2], np.float32)
        # in the pool as well: a multi-threaded kernel here would compete with the chunks
        weights = self._pool.submit(head_weights, self._network, horizon_HC).result()
        out = tuple(torch.from_numpy(block_SHQ) for block_SHQ in blocks)
        layout = layout_of(config.bucket_ms)
        country, zone = config.holidays_country, config.timezone
        phases = layout.buckets(torch.tensor([start_ms]), country, timezone=zone).at(0)
        origin_ms = start_ms + config.bucket_ms
        ahead = layout.horizon(origin_ms, config.horizon, country, timezone=zone)
        job = _ForecastJob(weights, out, torch.from_numpy(mean_SH), plans_ahead(plans), ahead)

        def forecast(chunk: slice) -> None:
            self._step(
                states, values_SF[chunk], phases, calendar_C,
                chunk=chunk, plans_SP=plans_at(plans, 0, chunk), job=job,
            )  # fmt: skip

        self._run_chunks(states.size, forecast)
        return (*blocks, mean_SH)

    def _run_chunks(self, size: int, work: Callable[[slice], None]) -> None:
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
        phases: BucketPhases,
        calendar_C: Tensor,
        *,
        chunk: slice,
        plans_SP: Tensor | None,
        job: "_ForecastJob | None" = None,
    ) -> None:
        """Step one bucket of one chunk; with `job`, forecast from its end on as well."""
        network, work = self._network, self._own.work
        stats_SK = states.stats_SK[chunk]
        values = torch.from_numpy(np.ascontiguousarray(values_SF.T, np.float32)).t()
        config = network.config
        inputs_SI = observe(
            stats_SK, values, phases, config, prior=network.prior, plans_SP=plans_SP
        )
        inputs_SI = network.with_embedding(inputs_SI, ids_of(stats_SK, config))
        scales, level_S = scales_of(stats_SK, config), level_of(stats_SK, config)
        unstarted_S = ~started(stats_SK)
        anchors = None if job is None else anchors_of(stats_SK, job.ahead, config)
        for first in range(0, stats_SK.shape[0], BLOCK):
            rows = slice(first, min(first + BLOCK, stats_SK.shape[0]))
            at = slice(chunk.start + rows.start, chunk.start + rows.stop)
            state = tuple(part[at] for part in states.state)
            inputs_BI = inputs_SI[rows]
            encoded_BD = network.encoder.step(inputs_BI, calendar_C, state, work)
            unstarted_N = unstarted_S[rows].nonzero()[:, 0]
            if unstarted_N.numel():  # a series starts with its first activity
                for part in state:
                    part.index_fill_(0, unstarted_N, 0.0)
            if job is not None and anchors is not None:
                out = tuple(block_SHQ[at] for block_SHQ in job.out)
                planned = planned_rows(job.plans, stats_SK[rows], at)
                network.heads.serve(
                    encoded_BD, inputs_BI, job.weights,
                    tuple(scale_S[rows] for scale_S in scales),
                    out,
                    mean_BH=job.mean_SH[at],
                    level_B=level_S[rows],
                    anchors=anchors.map(itemgetter(rows)),
                    work=work, levels=self._levels, planned=planned,
                )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _ForecastJob:
    """Weights, plans and phases of a forecasting step, and its outputs [S, H, Q] and [S, H]."""

    weights: Tensor
    out: tuple[Tensor, ...]
    mean_SH: Tensor
    plans: Plans | None
    ahead: HorizonPhases


def even_chunks(size: int, *, largest: int, threads: int) -> list[slice]:
    """Chunks of about equal size, the same number for each thread.

    >>> even_chunks(10, largest=6, threads=2)
    [slice(0, 5, None), slice(5, 10, None)]
    >>> even_chunks(0, largest=6, threads=2)
    []
    """
    rounds = -(-size // (largest * threads))
    step = -(-size // max(1, rounds * threads))
    return [slice(first, min(first + step, size)) for first in range(0, size, max(step, 1))]


def head_weights(network: QuantileNetwork, horizon_HC: Tensor) -> Tensor:
    """Weights of the heads for one origin's calendar, in the layout of `heads.serve`."""
    with torch.inference_mode():
        weights = network.heads.horizon_weights(horizon_HC[None])[0].flatten(2).contiguous()
        return weights.to(network.encoder.products)
