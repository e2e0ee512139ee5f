"""Steps all series of a partition on a GPU at once, by a captured CUDA graph.

Every step has the same shape, that of the states' capacity; padding rows stay zero. One graph
launch replaces a hundred kernel launches.

Axes: S = series, C = calendar, T = buckets, F = features, H = horizon, Q = quantiles, P = plan
columns, E = plan inputs, M = series with plans ahead.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model.inference.cpu_stepper import Floats, head_weights
from model.inference.network_states import NetworkStates
from model.inputs.anchors import Anchors, anchors_of
from model.inputs.carried_statistics import started
from model.inputs.newcomer_prior import level_of
from model.inputs.plans import N_PLANS, Plans, planned_rows, plans_ahead, plans_at
from model.inputs.seasons.calendar import N_HORIZON
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import observe
from model.inputs.static_features import ids_of
from model.inputs.targets import scales_of
from model.networks.quantile_levels import PublishedLevels
from model.networks.quantile_network import QuantileNetwork
from model.workspace import Workspace

#: Steps before a capture, in which libraries initialise.
_WARM_STEPS = 3


@dataclass(slots=True)
class _Program:
    """One step on fixed buffers; `run[forecasting]` reads the inputs and writes the outputs.

    `plans_SP` are those of the closed bucket, None for a network without plans; `encoded` are the
    latest arguments of the heads: encodings, inputs, scales and level; `out` are their blocks
    [S, H, Q], `mean_SH` is the mean.
    """

    values_SF: Tensor
    plans_SP: Tensor | None
    calendar_C: Tensor
    weights: Tensor
    out: tuple[Tensor, ...]
    mean_SH: Tensor
    work: Workspace
    run: dict[bool, Callable[[], None]] = field(default_factory=dict)
    encoded: tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor, Anchors] | None = None


class FixedShapeStepper:
    """Steps all series at once, at the shape of the states' capacity.

    On a CUDA device each kind of step is captured once as a graph and replayed until the states
    grow. The year ring is addressed by the time of the bucket, which a graph would freeze, so
    networks with it run without a graph, as all networks do on other devices. Series with plans
    ahead are forecast again in a separate pass, because their number changes from step to step.
    """

    def __init__(
        self, network: QuantileNetwork, levels: PublishedLevels, device: torch.device
    ) -> None:
        self._network = network
        self._levels = levels
        self._device = device
        self._captures = False

    def carry(
        self, states: NetworkStates, values_TSF: Floats, start_ms_T: list[int],
        calendar_TC: Tensor, *, plans: Plans | None = None,
    ) -> None:  # fmt: skip
        """Carry over T buckets without forecasting."""
        program = self._program(states, values_TSF.shape[2], calendar_TC.shape[1])
        for t, (values_SF, start_ms, calendar_C) in enumerate(
            zip(values_TSF, start_ms_T, calendar_TC, strict=True)
        ):
            _copy_plans(program, plans_at(plans, t, slice(0, states.size)))
            self._run(states, program, values_SF, start_ms, calendar_C, forecasting=False)

    def forecast(
        self, states: NetworkStates, values_SF: Floats, start_ms: int, calendar_C: Tensor,
        horizon_HC: Tensor, *, plans: Plans | None = None,
    ) -> tuple[Floats, ...]:  # fmt: skip
        """Carry over one bucket; forecast from its end on: blocks [S, H, Q], mean [S, H]."""
        program = self._program(states, values_SF.shape[1], calendar_C.shape[0])
        program.weights.copy_(head_weights(self._network, horizon_HC.to(self._device)))
        _copy_plans(program, plans_at(plans, 0, slice(0, states.size)))
        self._run(states, program, values_SF, start_ms, calendar_C, forecasting=True)
        self._plan(states, program, plans_ahead(plans))
        return tuple(
            block[: states.size].to("cpu", copy=True).numpy()
            for block in (*program.out, program.mean_SH)
        )

    def _plan(self, states: NetworkStates, program: _Program, plans: Plans | None) -> None:
        """Forecast the series with plans ahead again, with their plans."""
        planned = planned_rows(plans, states.stats_SK, slice(0, states.size))
        if planned is None or program.encoded is None:
            return
        rows_M, plans_MHE = planned
        encoded_SD, inputs_SI, scales, level_S, anchors = program.encoded
        everyone = torch.arange(rows_M.numel(), device=self._device)
        out = tuple(block_SHQ[rows_M] for block_SHQ in program.out)
        mean_MH = program.mean_SH[rows_M]
        self._network.heads.serve(
            encoded_SD[rows_M], inputs_SI[rows_M], program.weights,
            tuple(scale_S[rows_M] for scale_S in scales),
            out, mean_BH=mean_MH, level_B=level_S[rows_M],
            anchors=anchors.map(lambda part: part[rows_M]),
            work=program.work, levels=self._levels, planned=(everyone, plans_MHE),
        )  # fmt: skip
        for block_SHQ, again_MHQ in zip(program.out, out, strict=True):
            block_SHQ[rows_M] = again_MHQ
        program.mean_SH[rows_M] = mean_MH

    def _program(self, states: NetworkStates, features: int, calendar: int) -> _Program:
        """The program of these states, built when they are new or have grown."""
        if not isinstance(states.program, _Program):
            network, device = self._network, self._device
            network.prepare()
            config = network.config
            shape = (states.capacity, config.horizon, len(self._levels.quantiles))
            states.program = _Program(
                values_SF=torch.zeros(states.capacity, features, device=device),
                plans_SP=torch.zeros(states.capacity, N_PLANS, device=device)
                if config.plans
                else None,
                calendar_C=torch.zeros(calendar, device=device),
                weights=torch.zeros_like(
                    head_weights(network, torch.zeros(config.horizon, N_HORIZON, device=device))
                ),
                out=tuple(torch.empty(shape, device=device) for _ in range(network.heads.blocks)),
                mean_SH=torch.empty(shape[:2], device=device),
                work=Workspace(device),
            )
        return states.program

    def _run(
        self,
        states: NetworkStates,
        program: _Program,
        values_SF: Floats,
        start_ms: int,
        calendar_C: Tensor,
        *,
        forecasting: bool,
    ) -> None:
        values = torch.from_numpy(np.ascontiguousarray(values_SF, np.float32))
        program.values_SF[: states.size].copy_(values)
        program.calendar_C.copy_(calendar_C)
        if not self._captures:
            self._body(states, program, start_ms, forecasting=forecasting)
            return
        if forecasting not in program.run:
            program.run[forecasting] = self._captured(states, program, forecasting=forecasting)
        program.run[forecasting]()

    def _body(
        self, states: NetworkStates, program: _Program, start_ms: int, *, forecasting: bool
    ) -> None:
        """One step, never synchronising the device; `start_ms` only matters with the year ring."""
        network, config = self._network, self._network.config
        layout = layout_of(config.bucket_ms)
        starts, country, zone = torch.tensor([start_ms]), config.holidays_country, config.timezone
        phases = layout.buckets(starts, country, self._device, timezone=zone).at(0)
        inputs_SI = observe(
            states.stats_SK, program.values_SF, phases, config,
            prior=network.prior, plans_SP=program.plans_SP,
        )  # fmt: skip
        inputs_SI = network.with_embedding(inputs_SI, ids_of(states.stats_SK, config))
        encoded_SD = network.encoder.step(inputs_SI, program.calendar_C, states.state, program.work)
        unstarted_S = ~started(states.stats_SK)
        for part in states.state:  # a series starts with its first activity
            part.masked_fill_(unstarted_S.view(-1, *[1] * (part.dim() - 1)), 0.0)
        if forecasting:
            scales = scales_of(states.stats_SK, config)
            level_S = level_of(states.stats_SK, config)
            origin_ms = start_ms + config.bucket_ms
            ahead = layout.horizon(origin_ms, config.horizon, country, self._device, timezone=zone)
            anchors = anchors_of(states.stats_SK, ahead, config)
            program.encoded = encoded_SD, inputs_SI, scales, level_S, anchors
            network.heads.serve(
                encoded_SD, inputs_SI, program.weights, scales, program.out,
                mean_BH=program.mean_SH, level_B=level_S, anchors=anchors,
                work=program.work, levels=self._levels,
            )  # fmt: skip

    def _captured(
        self, states: NetworkStates, program: _Program, *, forecasting: bool
    ) -> Callable[[], None]:
        """The step as a CUDA graph; the warm-up steps leave the states unchanged."""
        carried = (states.stats_SK, *states.state)
        before = [part.clone() for part in carried]
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_STEPS):
                self._body(states, program, 0, forecasting=forecasting)
            for part, old in zip(carried, before, strict=True):
                part.copy_(old)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # another thread may be warming up the next model
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._body(states, program, 0, forecasting=forecasting)
        return graph.replay


def _copy_plans(program: _Program, plans_SP: Tensor | None) -> None:
    """Copy the plans of the closed bucket into the program's buffer."""
    if program.plans_SP is not None:
        program.plans_SP.zero_()
        if plans_SP is not None:
            program.plans_SP[: len(plans_SP)].copy_(plans_SP)
