"""The product's forecasters in the accuracy benchmark: carried over the history, bucket by bucket.

Axes: T = buckets, S = series, F = features, H = horizon, Q = quantiles.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from benchmarks.accuracy.problem import OriginForecast, Problem, timed
from model.config import DECILES, ModelConfig, TrainConfig
from model.history import History, plans_between
from model.inference.forecaster import Forecaster, NetworkForecaster, States
from model.inference.network_states import NetworkStates
from model.networks.quantile_network import QuantileNetwork
from model.pretraining.finetune import finetune, for_history
from model.pretraining.shipped import pretrained
from model.training.train import train
from stream.jobs.batch.config import batch_config
from stream.settings import ModelSettings


def configured(problem: Problem, *, seed: int, overrides: dict[str, Any]) -> TrainConfig:
    """The settings of `surgecast backtest` on the history before the first origin.

    Changed by `overrides`; the country is the task's.
    """
    history = problem.task.history
    before = replace(history, values_TSF=history.values_TSF[: problem.places[0]])
    settings = ModelSettings(country=problem.task.country or "")
    config = batch_config(before, settings, horizon=problem.horizon, seed=seed)
    names = set(ModelConfig.__dataclass_fields__)
    changed = {name: _frozen(value) for name, value in overrides.items() if name in names}
    training = {name: value for name, value in overrides.items() if name not in names}
    config = replace(config, model=replace(config.model, **changed), **training)
    return for_history(config, before)


def zero_shot(problem: Problem) -> NetworkForecaster:
    """The pretrained network at the bucket width and horizon of a problem."""
    network = pretrained(
        bucket_ms=problem.task.history.bucket_ms,
        horizon=problem.horizon,
        country=problem.task.country,
    )
    return NetworkForecaster(network, "zero-shot", quantiles=DECILES)


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Carried:
    """A forecaster of the product whose states are carried from origin to origin.

    `create` makes it as of an origin's bucket: once, before the first origin, or with `anew` at
    every origin.
    """

    def __init__(
        self, problem: Problem, create: Callable[[int], Forecaster], *, anew: bool = False
    ) -> None:
        self.problem = problem
        self.create = create
        self.anew = anew
        self.serving: Forecaster | None = None
        self.states: States | None = None
        self.read = 0

    def forecast(self, place: int) -> OriginForecast:
        """Create the forecaster if due, carry its states up to `place` and forecast."""
        history = self.problem.scored_history
        seconds = 0.0
        if self.serving is None or self.anew:
            created_at = place if self.anew else self.problem.places[0]
            serving, seconds = timed(lambda: self.create(created_at))
            self.serving, self.states = serving, serving.new_states(len(history.series))
            self.read = 0
            if isinstance(self.states, NetworkStates):
                self.states.set_static(history.static_features_SX)
        serving, states = self.serving, self.states
        assert serving is not None
        assert states is not None
        start_ms = history.start_ms + self.read * history.bucket_ms
        past = plans_between(history, self.read, place - 1)
        serving.warm_up(states, history.values_TSF[self.read : place - 1], start_ms, past)
        last_ms = history.start_ms + (place - 1) * history.bucket_ms
        known = plans_between(history, place - 1, place + self.problem.horizon)
        values_SF = history.values_TSF[place - 1]
        made, refresh = timed(lambda: serving.step(states, values_SF, last_ms, known))
        self.read = place
        return OriginForecast(np.array(made.units_SHQ), seconds, refresh)


class Surgecast(Carried):
    """One network trained before the first origin, its states carried from origin to origin.

    With `retrained` it is retrained at every later origin, from its current weights. The weights
    are stored in `folder`, so an interrupted run resumes with them.
    """

    def __init__(
        self,
        problem: Problem,
        folder: Path,
        config: TrainConfig,
        *,
        retrained: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(problem, self._serving, anew=retrained is not None)
        self.folder = folder
        self.config = config
        self.retrained = retrained

    def _serving(self, place: int) -> NetworkForecaster:
        return NetworkForecaster(self._network(place), "surgecast", quantiles=DECILES)

    def _network(self, place: int) -> QuantileNetwork:
        """The network as of `place`: from its file, or trained on the buckets before `place`."""
        path = self.folder / f"{place}.safetensors"
        network = QuantileNetwork(self.config.model)
        if path.exists():
            network.load_state_dict(load_file(path))
            return network.eval()
        before = self._before(place)
        earlier = [at for at in self.problem.places if at < place]
        if self.retrained is None or not earlier:
            network = finetune(before, self.config).network
        else:
            shorter = replace(self.config, **self.retrained)
            network = train(before, shorter, start=self._network(earlier[-1])).network
        save_file(network.state_dict(), path)
        return network

    def _before(self, place: int) -> History:
        history = self.problem.task.history
        return replace(history, values_TSF=history.values_TSF[:place])


class Ensemble:
    """The mean of the quantiles of several forecasters."""

    def __init__(self, members: list[Surgecast]) -> None:
        self.members = members

    def forecast(self, place: int) -> OriginForecast:
        """Mean over the members; their seconds are summed."""
        made = [member.forecast(place) for member in self.members]
        return OriginForecast(
            np.mean([one.units_SHQ for one in made], axis=0),
            sum(one.fit_seconds for one in made),
            sum(one.refresh_seconds for one in made),
        )
