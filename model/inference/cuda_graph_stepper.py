"""Steps all series of a partition on a GPU at once, by a captured CUDA graph.

Every step has the same shape, that of the states' capacity; padding rows stay zero. One graph
launch replaces hundreds of kernel launches. All that changes from bucket to bucket (values, plans,
calendar, the phases of the seasons) is in buffers that a step reads, never in its code; only what
kind of bucket it is, such as one with a public holiday, selects another graph.

Axes: S = series, C = calendar, T = buckets, F = features, H = horizon, Q = quantiles, P = plan
columns, E = plan inputs, M = series with plans ahead.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from model.inference.cpu_stepper import Floats, head_weights
from model.inference.cuda_capture import Capture, CaptureFailed, capture_graph, to_device, to_host
from model.inference.network_states import NetworkStates
from model.inputs.anchors import Anchors, anchors_of
from model.inputs.carried_statistics import started
from model.inputs.newcomer_prior import level_of
from model.inputs.plans import N_PLANS, Plans, planned_rows, plans_ahead, plans_at
from model.inputs.seasons.calendar import N_HORIZON
from model.inputs.seasons.season_layout import BucketPhases, HorizonPhases, layout_of
from model.inputs.series_inputs import observe
from model.inputs.static_features import ids_of
from model.inputs.targets import scales_of
from model.networks.quantile_levels import PublishedLevels
from model.networks.quantile_network import QuantileNetwork
from model.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What decides the operations of a step: a graph for each. The rest is in buffers."""

    forecasting: bool
    ends: bool
    day_ends: bool
    holiday: bool
    special: bool
    holiday_ahead: bool
    special_ahead: bool

    def bucket(self, buffers: BucketPhases) -> BucketPhases:
        """The phases of a closed bucket of this kind."""
        return replace(
            buffers,
            ends_T=[self.ends],
            day_ends_T=[self.day_ends],
            holiday_T=[self.holiday],
            special_T=[self.special],
        )

    def horizon(self, buffers: HorizonPhases) -> HorizonPhases:
        """The phases of a horizon of this kind."""
        return replace(buffers, any_holiday=self.holiday_ahead, any_special=self.special_ahead)


#: What the heads read: encodings, inputs, scales and anchors.
_HeadInputs = tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor, Anchors]


@dataclass(slots=True)
class _Program:
    """One step on fixed buffers; `run[kind]` reads the inputs and writes the outputs.

    `plans_SP` are those of the closed bucket, None for a network without plans; `encoded[kind]` are
    the latest arguments of the heads: encodings, inputs, scales and level; `out` are their blocks
    [S, H, Q], `mean_SH` is the mean.
    """

    values_SF: Tensor
    plans_SP: Tensor | None
    calendar_C: Tensor
    phases: BucketPhases
    ahead: HorizonPhases
    weights: Tensor
    out: tuple[Tensor, ...]
    mean_SH: Tensor
    work: Workspace
    run: dict[_Kind, Callable[[], None]] = field(default_factory=dict)
    encoded: dict[_Kind, _HeadInputs] = field(default_factory=dict)


class FixedShapeStepper:
    """Steps all series at once, at the shape of the states' capacity.

    On a CUDA device each kind of step is captured once as a graph and replayed until the states
    grow; elsewhere it runs as it is, unless `capture` is given. Series with plans ahead are
    forecast again in a separate pass, because their number changes from step to step.
    """

    def __init__(
        self,
        network: QuantileNetwork,
        levels: PublishedLevels,
        device: torch.device,
        *,
        capture: Capture | None = None,
    ) -> None:
        self._network = network
        self._levels = levels.to(device)
        self._device = device
        self._capture = capture_graph if capture is None and device.type == "cuda" else capture

    def carry(
        self, states: NetworkStates, values_TSF: Floats, start_ms_T: list[int],
        calendar_TC: Tensor, *, plans: Plans | None = None,
    ) -> None:  # fmt: skip
        """Carry over T buckets without forecasting."""
        program = self._program(states, values_TSF.shape[2], calendar_TC.shape[1])
        config = self._network.config
        starts, country, zone = torch.tensor(start_ms_T), config.holidays_country, config.timezone
        phases = layout_of(config.bucket_ms).buckets(starts, country, timezone=zone)
        for t, (values_SF, calendar_C) in enumerate(zip(values_TSF, calendar_TC, strict=True)):
            self._fill(states, program, values_SF, phases.at(t), calendar_C)
            _copy_plans(program, plans_at(plans, t, slice(0, states.size)))
            self._run(states, program, _kind_of(phases.at(t)))

    def forecast(
        self, states: NetworkStates, values_SF: Floats, start_ms: int, calendar_C: Tensor,
        horizon_HC: Tensor, *, plans: Plans | None = None,
    ) -> tuple[Floats, ...]:  # fmt: skip
        """Carry over one bucket; forecast from its end on: blocks [S, H, Q], mean [S, H]."""
        program = self._program(states, values_SF.shape[1], calendar_C.shape[0])
        config = self._network.config
        layout = layout_of(config.bucket_ms)
        country, zone = config.holidays_country, config.timezone
        phases = layout.buckets(torch.tensor([start_ms]), country, timezone=zone).at(0)
        origin_ms = start_ms + config.bucket_ms
        ahead = layout.horizon(origin_ms, config.horizon, country, timezone=zone, distinct=False)
        self._fill(states, program, values_SF, phases, calendar_C)
        _copy_parts(ahead, program.ahead)
        program.weights.copy_(head_weights(self._network, horizon_HC.to(self._device)))
        _copy_plans(program, plans_at(plans, 0, slice(0, states.size)))
        kind = _kind_of(phases, ahead)
        self._run(states, program, kind)
        self._plan(states, program, kind, plans_ahead(plans))
        return to_host([block[: states.size] for block in (*program.out, program.mean_SH)])

    def _plan(
        self, states: NetworkStates, program: _Program, kind: _Kind, plans: Plans | None
    ) -> None:
        """Forecast the series with plans ahead again, with their plans."""
        planned = planned_rows(plans, states.stats_SK, slice(0, states.size))
        if planned is None:
            return
        rows_M, plans_MHE = planned
        encoded_SD, inputs_SI, scales, level_S, anchors = program.encoded[kind]
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
            layout = layout_of(config.bucket_ms)
            shape = (states.capacity, config.horizon, len(self._levels.quantiles))
            states.program = _Program(
                values_SF=torch.zeros(states.capacity, features, device=device),
                plans_SP=torch.zeros(states.capacity, N_PLANS, device=device)
                if config.plans
                else None,
                calendar_C=torch.zeros(calendar, device=device),
                phases=layout.buckets(torch.zeros(1, dtype=torch.int64), None, device).at(0),
                ahead=layout.horizon(0, config.horizon, None, device, distinct=False),
                weights=torch.zeros_like(
                    head_weights(network, torch.zeros(config.horizon, N_HORIZON, device=device))
                ),
                out=tuple(torch.empty(shape, device=device) for _ in range(network.heads.blocks)),
                mean_SH=torch.empty(shape[:2], device=device),
                work=Workspace(device),
            )
        return states.program

    def _fill(
        self, states: NetworkStates, program: _Program, values_SF: Floats, phases: BucketPhases,
        calendar_C: Tensor,
    ) -> None:  # fmt: skip
        """Copy a closed bucket into the buffers."""
        to_device(values_SF[: states.size], program.values_SF)
        program.calendar_C.copy_(calendar_C)
        _copy_parts(phases, program.phases)

    def _run(self, states: NetworkStates, program: _Program, kind: _Kind) -> None:
        def step() -> None:
            self._body(states, program, kind)

        if self._capture is None:
            step()
            return
        if kind not in program.run:
            try:
                program.run[kind] = self._capture(step, (states.stats_SK, *states.state))
            except CaptureFailed as error:  # slower, but the network still serves
                log.warning("steps run without CUDA graphs: %s", str(error).partition("\n")[0])
                self._capture = None
                step()
                return
        program.run[kind]()

    def _body(self, states: NetworkStates, program: _Program, kind: _Kind) -> None:
        """One step: no value from the host, no synchronisation, nothing that `kind` leaves open."""
        network, config = self._network, self._network.config
        inputs_SI = observe(
            states.stats_SK, program.values_SF, kind.bucket(program.phases), config,
            prior=network.prior, plans_SP=program.plans_SP,
        )  # fmt: skip
        inputs_SI = network.with_embedding(inputs_SI, ids_of(states.stats_SK, config))
        encoded_SD = network.encoder.step(inputs_SI, program.calendar_C, states.state, program.work)
        unstarted_S = ~started(states.stats_SK)
        for part in states.state:  # a series starts with its first activity
            part.masked_fill_(unstarted_S.view(-1, *[1] * (part.dim() - 1)), 0.0)
        if kind.forecasting:
            scales = scales_of(states.stats_SK, config)
            level_S = level_of(states.stats_SK, config)
            anchors = anchors_of(states.stats_SK, kind.horizon(program.ahead), config)
            program.encoded[kind] = encoded_SD, inputs_SI, scales, level_S, anchors
            network.heads.serve(
                encoded_SD, inputs_SI, program.weights, scales, program.out,
                mean_BH=program.mean_SH, level_B=level_S, anchors=anchors,
                work=program.work, levels=self._levels,
            )  # fmt: skip


def _kind_of(phases: BucketPhases, ahead: HorizonPhases | None = None) -> _Kind:
    """The kind of a step over a bucket, with a forecast of a horizon if one is given."""
    return _Kind(
        forecasting=ahead is not None,
        ends=any(phases.ends_T),
        day_ends=any(phases.day_ends_T),
        holiday=any(phases.holiday_T),
        special=any(phases.special_T),
        holiday_ahead=ahead is not None and ahead.any_holiday,
        special_ahead=ahead is not None and ahead.any_special,
    )


def _copy_parts(source: BucketPhases | HorizonPhases, target: BucketPhases | HorizonPhases) -> None:
    """Copy the tensors of phases into the same ones of a program."""
    for part in fields(target):
        buffer = getattr(target, part.name)
        if isinstance(buffer, Tensor):
            buffer.copy_(getattr(source, part.name))


def _copy_plans(program: _Program, plans_SP: Tensor | None) -> None:
    """Copy the plans of the closed bucket into the program's buffer."""
    if program.plans_SP is not None:
        program.plans_SP.zero_()
        if plans_SP is not None:
            program.plans_SP[: len(plans_SP)].copy_(plans_SP)
