"""Forecasters for a file: the champion of a registry, a challenger, or the seasonal naive.

Axes: S = series, H = horizon, Q = quantiles.
"""

from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import QuantileForecast
from model.evaluation.importance import Importances, permutation_importance
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.inference.network_states import NetworkStates
from model.pretraining.shipped import pretrained, shipped
from model.quantiles.whole_units import in_units
from model.training.dataset import History, plans_between
from stream.errors import UsageError
from stream.jobs.training.foundation import foundation_forecaster
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings, duration_text


def importance_of(
    history: History, forecaster: Forecaster, origins_ms: list[int], console: Console
) -> Importances:
    """Measure the importance of the network's inputs, with a progress bar. Raises UsageError."""
    if not isinstance(forecaster, NetworkForecaster):
        raise UsageError(
            "--importance needs a network, but the history is too short to train one; "
            "give more history, or leave --importance out"
        )
    bar = Progress(console=console, transient=not console.is_terminal)
    with bar:
        task = bar.add_task("permuting inputs", total=1.0)
        return permutation_importance(
            history,
            forecaster.network,
            origins_ms,
            progress=lambda share: bar.update(task, completed=share),
        )


def champion_of(
    registry: Registry | None,
    history: History,
    horizon: int,
    settings: ModelSettings,
    console: Console,
    *,
    timezone: str,
) -> Forecaster | None:
    """Load the champion if its bucket width fits and its horizon is long enough; else None.

    It reads the buckets by `timezone`, whatever it was trained with.
    """
    champion = registry.champion() if registry is not None else None
    if registry is None or champion is None:
        return None
    forecaster = registry.load(
        champion, quantiles=settings.quantiles, timezone=timezone, rounded=settings.rounded
    )
    if forecaster.bucket_ms != history.bucket_ms or forecaster.horizon < horizon:
        console.print(
            f"the champion {champion} has another bucket width or a shorter horizon; "
            "training a network instead"
        )
        return None
    return forecaster


def untrained_for(
    history: History,
    horizon: int,
    settings: ModelSettings,
    console: Console,
    *,
    timezone: str,
    reason: str,
) -> Forecaster:
    """The forecaster of a history too short to train on: the pretrained network, if it is on."""
    if not settings.pretrained:
        console.print(f"{reason}; the seasonal naive forecasts instead")
        return naive_for(history, horizon, settings)
    console.print(f"{reason}; the pretrained network forecasts instead")
    network = pretrained(
        bucket_ms=history.bucket_ms,
        horizon=horizon,
        country=settings.country or None,
        timezone=timezone,
    )
    return NetworkForecaster(
        network, shipped()[1].model_id, quantiles=settings.quantiles, rounded=settings.rounded
    )


def challenger_for(
    history: History, horizon: int, settings: ModelSettings, seed: int
) -> Forecaster:
    """Load the foundation model of the settings. Raises UsageError, also if they name none."""
    challenger = foundation_forecaster(
        settings, horizon=horizon, bucket_ms=history.bucket_ms, seed=seed
    )
    if challenger is None:
        raise UsageError("--challenger needs the settings model.challenger and .challenger_path")
    return challenger


def naive_for(history: History, horizon: int, settings: ModelSettings) -> SeasonalNaiveForecaster:
    """Seasonal naive for the bucket width of a history."""
    return SeasonalNaiveForecaster(
        horizon=horizon, bucket_ms=history.bucket_ms, quantiles=settings.quantiles
    )


def naive_season(naive: SeasonalNaiveForecaster, history: History) -> str:
    """Which demand the seasonal naive repeats after a history, for people."""
    season, width = naive.season, duration_text(naive.bucket_ms)
    if history.buckets >= season:
        return f"seasonal-naive: the demand {season} buckets of {width} before"
    return f"seasonal-naive: the last demand, as there are fewer than {season} buckets of {width}"


def carry_over(forecaster: Forecaster, history: History) -> QuantileForecast:
    """Forecast from the end of a history, after warming up on all of it.

    In whole units for series whose demand is whole.
    """
    states = forecaster.new_states(len(history.series))
    if isinstance(states, NetworkStates):
        states.set_static(history.static_features_SX)
    last = history.buckets - 1
    past = plans_between(history, 0, last)
    forecaster.warm_up(states, history.values_TSF[:-1], history.start_ms, past)
    last_ms = history.end_ms - history.bucket_ms
    known = plans_between(history, last, last + 1 + forecaster.horizon)
    made = forecaster.step(states, history.values_TSF[-1], last_ms, known)
    whole_S = history.whole_units_S
    return replace(
        made,
        units_SHQ=in_units(made.units_SHQ, whole_S),
        cumulative_SHQ=in_units(made.cumulative_SHQ, whole_S),
    )
