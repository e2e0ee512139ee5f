"""Permutation importance: the rise of WQL when an input is taken from other series.

One input at a time is replaced, over the whole past, by that of other series (in the same buckets,
except for the calendar), so its values keep their distribution and their course in time, but lose
their relation to the series. With a single series the input is shifted in time instead. The rise of
WQL over the rolling origins is the importance (Breiman 2001). Redundant inputs share their
importance: each alone may seem unimportant.

The carried factors of the horizon (`model.inputs.series_inputs.FACTORS`) count as one input.

Axes: T = buckets, S = series, I = inputs, C = calendar, O = origins, H = horizon, Q = quantiles, D
= encoded width, E = plan inputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.durations import DAY_MS
from model.errors import HistoryTooShort
from model.evaluation.metrics import wql
from model.inputs.anchors import Anchors, anchors_of
from model.inputs.carried_statistics import PRICE, UNITS, started
from model.inputs.newcomer_prior import scale_of
from model.inputs.plans import plan_features
from model.inputs.seasons.calendar import N_CALENDAR, calendar_features, horizon_calendar
from model.inputs.seasons.season_layout import layout_of
from model.inputs.series_inputs import input_names, new_carried, observe
from model.inputs.static_features import ids_of, set_static
from model.networks.quantile_network import QuantileNetwork
from model.quantiles.bands import main_levels
from model.quantiles.whole_units import round_to_units
from model.training.dataset import History, plans_of

#: Name of the row for the calendar as a whole, past and future.
CALENDAR: Final = "calendar"
#: Name of the row for the carried factors of the horizon.
SEASON: Final = "season"
#: Name of the row for the plans of the horizon; plans of the past are inputs.
PLANS: Final = "plans"
#: Maximum number of series, by demand, and days read before the first origin.
_MAX_SERIES: Final = 200
_WARM_DAYS: Final = 112


@dataclass(frozen=True, slots=True)
class Importance:
    """Rise of WQL when `name` is permuted: mean and standard deviation over the repeats."""

    name: str
    wql_rise: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Importances:
    """WQL of the unchanged network, and its inputs, the most important first."""

    wql: float
    inputs: list[Importance]


def permutation_importance(
    history: History,
    network: QuantileNetwork,
    origins_ms: Sequence[int],
    *,
    repeats: int = 3,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Importances:
    """Importance of every input of a network, of calendar and season, over rolling origins.

    `origins_ms` are starts of first buckets forecast. Uses the 200 series with most demand. Raises
    HistoryTooShort for an origin without a bucket before it, or whose horizon extends beyond the
    history, and UndefinedMetric if nothing was sold at the origins.
    """
    prepared = _PreparedInputs(history, network, origins_ms)
    rng = np.random.default_rng(seed)
    own = prepared.wql(prepared.inputs_TSI)
    names = (*input_names(network.config), CALENDAR, SEASON)
    if network.config.plans:
        names = (*names, PLANS)
    found = []
    for number, name in enumerate(names):
        rises = [prepared.permuted(name, rng) - own for _ in range(repeats)]
        found.append(Importance(name, float(np.mean(rises)), float(np.std(rises))))
        if progress is not None:
            progress((number + 1) / len(names))
    return Importances(own, sorted(found, key=lambda one: -one.wql_rise))


class _PreparedInputs:
    """Inputs of all relevant buckets, computed once; each permutation only runs the network."""

    def __init__(
        self, history: History, network: QuantileNetwork, origins_ms: Sequence[int]
    ) -> None:
        self.network = network
        self.config = network.config
        self.history = history
        bucket_ms, horizon = history.bucket_ms, self.config.horizon
        places = sorted((origin - history.start_ms) // bucket_ms for origin in origins_ms)
        if not places or places[0] < 1 or places[-1] + horizon > history.buckets:
            raise HistoryTooShort(
                f"origins must have a bucket before them and {horizon} buckets from them on; "
                f"the history has {history.buckets}"
            )
        self.first = max(0, places[0] - _WARM_DAYS * self.config.buckets_per_day)
        self.places_O = np.array(places)
        chosen = np.sort(np.argsort(-history.volume(places[0]), kind="stable")[:_MAX_SERIES])
        self.whole_S = history.whole_units_S[chosen]
        values_TSF = torch.from_numpy(np.ascontiguousarray(history.values_TSF[:, chosen]))
        self.actual_OSH = torch.stack(
            [values_TSF[place : place + horizon, :, UNITS].T for place in places]
        )
        stats_SK = new_carried(len(chosen), self.config)
        set_static(stats_SK, torch.from_numpy(history.static_features_SX[chosen]), self.config)
        self.ids_S3 = ids_of(stats_SK, self.config)
        plans_TSP = plans_of(history, self.config, chosen) if self.config.plans else None
        layout, country = layout_of(bucket_ms), self.config.holidays_country
        zone = self.config.timezone
        starts = history.start_ms + bucket_ms * torch.arange(places[-1])
        phases = layout.buckets(starts, country, timezone=zone)
        inputs, begun, ahead, anchors = [], [], [], []
        self.scale_OS = torch.ones(len(places), len(chosen))
        for t in range(places[-1]):
            held_SP = None if plans_TSP is None else plans_TSP[t]
            seen_SI = observe(
                stats_SK, values_TSF[t], phases.at(t), self.config,
                prior=network.prior, plans_SP=held_SP,
            )  # fmt: skip
            if t >= self.first:
                inputs.append(seen_SI)
                begun.append(started(stats_SK))
            if t + 1 in places:
                self.scale_OS[places.index(t + 1)] = scale_of(stats_SK, self.config)
                origin_ms = history.start_ms + (t + 1) * bucket_ms
                coming = layout.horizon(origin_ms, horizon, country, timezone=zone)
                anchors.append(anchors_of(stats_SK, coming, self.config))
                if plans_TSP is not None:
                    horizon_SHP = plans_TSP[t + 1 : t + 1 + horizon].transpose(0, 1)
                    ahead.append(plan_features(horizon_SHP, stats_SK[:, PRICE, None]))
        self.plans_OSHE = torch.stack(ahead) if ahead else None
        logs = zip(*(one.logs for one in anchors), strict=True)
        self.anchors = Anchors(
            tuple(torch.stack(log) for log in logs), torch.stack([one.error for one in anchors])
        )
        self.inputs_TSI = torch.stack(inputs)
        self.begun_TS = torch.stack(begun)

    def permuted(self, name: str, rng: np.random.Generator) -> float:
        """WQL with one input, the calendar, the season or the plans replaced."""
        if name == PLANS and self.plans_OSHE is not None:
            other_S = torch.from_numpy(rng.permutation(self.plans_OSHE.shape[1]))
            return self.wql(self.inputs_TSI, plans_OSHE=self.plans_OSHE[:, other_S])
        if name == CALENDAR:
            weeks, days = rng.integers(0, 52), rng.integers(1, 7)  # never the same weekday
            return self.wql(self.inputs_TSI, calendar_days=int(7 * weeks + days))
        if name == SEASON:
            return self.wql(self.inputs_TSI, anchors=self._other_season(rng))
        column = input_names(self.config).index(name)
        inputs_TSI = self.inputs_TSI.clone()
        buckets, series = inputs_TSI.shape[:2]
        if series > 1:
            other_S = torch.from_numpy(rng.permutation(series))
            inputs_TSI[:, :, column] = inputs_TSI[:, other_S, column]
        else:
            shift = int(rng.integers(1, max(buckets, 2)))
            inputs_TSI[:, :, column] = inputs_TSI[:, :, column].roll(shift, dims=0)
        return self.wql(inputs_TSI)

    def _other_season(self, rng: np.random.Generator) -> Anchors:
        """The factors of other series; of a single one, those of other buckets of the horizon."""
        series, horizon = self.anchors.error.shape[1], self.config.horizon
        if series > 1:
            other_S = torch.from_numpy(rng.permutation(series))
            logs = tuple(log_OSH[:, other_S] for log_OSH in self.anchors.logs)
        else:
            shift = int(rng.integers(1, max(horizon, 2)))
            logs = tuple(log_OSH.roll(shift, dims=2) for log_OSH in self.anchors.logs)
        return self.anchors._replace(logs=logs)

    def wql(
        self,
        inputs_TSI: Tensor,
        *,
        calendar_days: int = 0,
        anchors: Anchors | None = None,
        plans_OSHE: Tensor | None = None,
    ) -> float:
        """WQL of the forecasts from these inputs, with the calendar shifted by `calendar_days`.

        `anchors` and `plans_OSHE` replace those of the history.
        """
        config, ahead_ms = self.config, calendar_days * DAY_MS
        bucket_ms, begin_ms = config.bucket_ms, self.history.start_ms + ahead_ms
        starts = begin_ms + bucket_ms * (self.first + np.arange(len(inputs_TSI), dtype=np.int64))
        shared: dict[str, Any] = {
            "bucket_ms": bucket_ms, "country": config.holidays_country,
            "year_terms": config.year_terms, "timezone": config.timezone,
        }  # fmt: skip
        calendar_TC = torch.from_numpy(calendar_features(starts, **shared))
        origins_O = begin_ms + bucket_ms * self.places_O
        horizon_OHC = torch.from_numpy(
            horizon_calendar(origins_O, horizon=config.horizon, **shared)
        )
        with torch.no_grad():
            forecast = self._forecast(
                inputs_TSI,
                calendar_TC,
                horizon_OHC,
                self.anchors if anchors is None else anchors,
                self.plans_OSHE if plans_OSHE is None else plans_OSHE,
            )
        columns = main_levels(config.quantiles)
        units_OSHQ: NDArray[np.float32] = forecast[..., columns].numpy()
        units_OSHQ[:, self.whole_S] = round_to_units(units_OSHQ[:, self.whole_S])
        quantiles = config.quantiles[columns]
        flat_NQ = units_OSHQ.reshape(-1, len(quantiles))
        return wql(self.actual_OSH.reshape(-1).numpy(), flat_NQ, quantiles)

    def _forecast(
        self,
        inputs_TSI: Tensor,
        calendar_TC: Tensor,
        horizon_OHC: Tensor,
        anchors: Anchors,
        plans_OSHE: Tensor | None,
    ) -> Tensor:
        """Units [O, S, H, Q] of the network, run from its first bucket to the last origin."""
        series = inputs_TSI.shape[1]
        state = self.network.new_state(series, torch.device("cpu"))
        origins_O = self.places_O - self.first
        begins_T = (~self.begun_TS[:-1] & self.begun_TS[1:]).any(dim=1).numpy()
        cuts = sorted({*origins_O.tolist(), *(np.flatnonzero(begins_T) + 1).tolist()})
        encoded_of: dict[int, Tensor] = {}
        done = 0
        for cut in cuts:
            part_STI = self.network.with_embedding(
                inputs_TSI[done:cut].transpose(0, 1), self.ids_S3
            )
            calendar_STC = calendar_TC[done:cut].expand(series, -1, N_CALENDAR)
            encoded_STD, state = self.network.forward(part_STI, calendar_STC, state)
            encoded_of[cut], done = encoded_STD[:, -1], cut
            begun_S = self.begun_TS[cut - 1]  # a series starts with its first activity
            state = tuple(part * begun_S.view(-1, *[1] * (part.dim() - 1)) for part in state)
        encoded_OSD = torch.stack([encoded_of[cut] for cut in origins_O.tolist()])
        newest_OSI = inputs_TSI[torch.from_numpy(origins_O) - 1]
        newest_OSI = self.network.with_embedding(newest_OSI.transpose(0, 1), self.ids_S3).transpose(
            0, 1
        )
        units_OSHQ, *_ = self.network.heads(
            encoded_OSD, newest_OSI, horizon_OHC, anchors, plans_OSHE
        )
        cut_OSHQ: Tensor = units_OSHQ.clamp(min=0.0)
        return cut_OSHQ * self.scale_OS[:, :, None, None]
