"""What forecasts a file: the champion of a registry, a network, or the seasonal naive.

Beside `stream/jobs/batch/run.py`, which reads the file and writes the results.

Axes: S = series, H = horizon, Q = quantiles.
"""

from rich.console import Console
from rich.progress import Progress

from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.contract import QuantileForecast
from model.evaluation.importance import Importances, permutation_importance
from model.inference.forecaster import Forecaster, NetworkForecaster
from model.inference.network_states import NetworkStates
from model.training.dataset import History, plans_between
from stream.errors import UsageError
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings


def importance_of(
    history: History, forecaster: Forecaster, origins_ms: list[int], console: Console
) -> Importances:
    """Importance of the network's inputs, with a progress bar."""
    if not isinstance(forecaster, NetworkForecaster):
        raise UsageError("--importance needs a network, and the history is too short to train one")
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
    registry: Registry | None, history: History, horizon: int, console: Console
) -> Forecaster | None:
    """The registry's champion, if it was made for these buckets and reaches far enough."""
    champion = registry.champion() if registry is not None else None
    if registry is None or champion is None:
        return None
    forecaster = registry.load(champion)
    if forecaster.bucket_ms != history.bucket_ms or forecaster.horizon < horizon:
        console.print(f"the champion {champion} does not fit this file; a network is trained")
        return None
    return forecaster


def naive_for(history: History, horizon: int, settings: ModelSettings) -> SeasonalNaiveForecaster:
    """The seasonal naive for the buckets of a history."""
    return SeasonalNaiveForecaster(
        horizon=horizon, bucket_ms=history.bucket_ms, quantiles=settings.quantiles
    )


def carry_over(forecaster: Forecaster, history: History) -> QuantileForecast:
    """The forecast from the end of a history on, after one pass over all of it."""
    states = forecaster.new_states(len(history.series))
    if isinstance(states, NetworkStates):
        states.tell(history.told_SX)
    last = history.buckets - 1
    past = plans_between(history, 0, last)
    forecaster.warm_up(states, history.values_TSF[:-1], history.start_ms, past)
    last_ms = history.end_ms - history.bucket_ms
    known = plans_between(history, last, last + 1 + forecaster.horizon)
    return forecaster.step(states, history.values_TSF[-1], last_ms, known)
