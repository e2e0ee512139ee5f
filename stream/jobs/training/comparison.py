"""Compares a challenger with the model that serves, on origins held back from its training.

Axes: T = buckets, S = series, F = features, O = origins, H = horizon.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import CENSORED_SHARE
from model.durations import DAY_MS
from model.errors import HistoryTooShort
from model.evaluation.backtest import Backtest, backtest, last_origins
from model.evaluation.looks import Look, error_to_spend
from model.evaluation.promotion import LEAST_ORIGINS, Verdict, decide
from model.inference.forecaster import Forecaster
from model.inputs.carried_statistics import censored
from model.training.dataset import History
from stream.jobs.training.foundation import beside_foundation
from stream.series_ids import rollups_of
from stream.settings import ModelSettings

#: Days before the first origin over which both models warm up; their statistics reach further back.
_WARM_UP_DAYS: Final = 28
#: At most one in so many buckets is held back.
_KEEP: Final = 3
#: Name of the challenger in a backtest.
CHALLENGER: Final = "challenger"


def origins_to_hold_back(buckets: int, *, horizon: int, wanted: int) -> int:
    """Origins at the end of a history to hold back from a training, one horizon each.

    A third of the buckets at most. Raises HistoryTooShort if they are too few for a verdict.

    >>> origins_to_hold_back(2_000, horizon=24, wanted=7)
    7
    >>> origins_to_hold_back(240, horizon=14, wanted=7)
    5
    """
    fitting = buckets // (_KEEP * horizon)
    if fitting < LEAST_ORIGINS:
        raise HistoryTooShort(
            f"{buckets} buckets are too few to hold back {LEAST_ORIGINS} origins of {horizon} "
            f"buckets for a comparison: give at least {_KEEP * LEAST_ORIGINS * horizon}"
        )
    return min(max(wanted, LEAST_ORIGINS), fitting)


def first_buckets(history: History, count: int) -> History:
    """The first `count` buckets."""
    return replace(history, values_TSF=history.values_TSF[:count])


def compare(
    history: History,
    challenger: Forecaster,
    incumbent: Forecaster,
    *,
    origins: int,
    looks: Iterable[Look],
    settings: ModelSettings,
) -> Verdict:
    """Decide on promotion by a backtest on the last `origins` origins of a history.

    `looks` are the spans of earlier comparisons. Sold-out buckets do not count. The verdict also
    says whether a foundation model of the settings would be better than the model that serves from
    now on.
    """
    horizon = challenger.horizon
    chosen_ms = last_origins(history, horizon=horizon, count=origins)
    models = {CHALLENGER: challenger, incumbent.model_id: incumbent}
    result = warmed_backtest(history, models, chosen_ms)
    known_OSH = _in_stock(history, chosen_ms, horizon)
    verdict = decide(
        result,
        champion=incumbent.model_id,
        challenger=CHALLENGER,
        rollups=rollups_of(result.series),
        known_OSH=known_OSH,
        tail=error_to_spend(chosen_ms, horizon_ms=horizon * history.bucket_ms, looks=looks),
    )
    serving = CHALLENGER if verdict.promoted else incumbent.model_id
    return beside_foundation(
        verdict, result, history, settings, serving=serving, known_OSH=known_OSH
    )


def warmed_backtest(
    history: History, models: Mapping[str, Forecaster], origins_ms: list[int]
) -> Backtest:
    """A backtest of models in the states in which they serve after a swap."""
    per_day = max(1, DAY_MS // history.bucket_ms)
    return backtest(history, models, origins_ms, warm_up=_WARM_UP_DAYS * per_day)


def look_of(verdict: Verdict, history: History) -> Look | None:
    """The span on which a verdict was made; None if it compared nothing."""
    return (verdict.origins_ms[0], history.end_ms) if verdict.origins_ms else None


def verdict_metrics(verdict: Verdict) -> dict[str, float]:
    """The verdict's figures as metrics of a manifest."""
    found = {
        "wql": verdict.challenger_wql,
        "wql_champion": verdict.champion_wql,
        "wql_foundation": verdict.outsider_wql,
        "change_low": verdict.low,
        "change_high": verdict.high,
        "origins_compared": float(len(verdict.origins_ms)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _in_stock(history: History, origins_ms: list[int], horizon: int) -> NDArray[np.bool_]:
    """False [O, S, H] for buckets that were sold out for so long that sales are no demand."""
    places = [(origin - history.start_ms) // history.bucket_ms for origin in origins_ms]
    return np.stack(
        [
            ~censored(torch.from_numpy(values_HSF), share=CENSORED_SHARE).numpy().T
            for values_HSF in (history.values_TSF[place : place + horizon] for place in places)
        ]
    )
