"""Surgecast in the accuracy benchmark: trained once and carried, or retrained at every origin.

Axes: T = buckets, S = series, F = features, H = horizon, Q = quantiles.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from benchmarks.accuracy.problem import OriginForecast, Problem, timed
from model.config import ModelConfig, TrainConfig
from model.inference.forecaster import NetworkForecaster
from model.inference.network_states import NetworkStates
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import History
from model.training.train import train


def configured(problem: Problem, *, seed: int, overrides: dict[str, Any]) -> TrainConfig:
    """The best settings on the tuning origins (docs/experiments.md), changed by `overrides`."""
    history = problem.task.history
    names = set(ModelConfig.__dataclass_fields__)
    model: dict[str, Any] = {"dropout": 0.1 if problem.hourly else 0.15, "prior": True}
    training: dict[str, Any] = {"seed": seed, "updates": 2_400}
    if not problem.hourly:
        training |= {"updates": 600, "chunk": 64, "volume_power": 0.5}
    model |= {name: _frozen(value) for name, value in overrides.items() if name in names}
    training |= {name: value for name, value in overrides.items() if name not in names}
    shape = ModelConfig(horizon=problem.horizon, bucket_ms=history.bucket_ms, **model)
    return TrainConfig(model=shape, **training)


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Surgecast:
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
        self.problem = problem
        self.folder = folder
        self.config = config
        self.retrained = retrained
        self.serving: NetworkForecaster | None = None
        self.states: NetworkStates | None = None
        self.read = 0

    def forecast(self, place: int) -> OriginForecast:
        """Train if due, carry the states up to `place` and forecast."""
        first = self.problem.places[0]
        seconds = 0.0
        trained_at = first if self.retrained is None else place
        if self.serving is None or (self.retrained is not None and place != first):
            network, seconds = timed(lambda: self._network(trained_at))
            self.serving = NetworkForecaster(network, "surgecast")
            self.states, self.read = self.serving.new_states(self.problem.task.scored), 0
            self.states.set_static(
                self.problem.task.history.static_features_SX[: self.problem.task.scored]
            )
        serving, states = self.serving, self.states
        assert states is not None
        history = self.problem.task.history
        values_TSF = history.values_TSF[:, : self.problem.task.scored]
        start_ms = history.start_ms + self.read * history.bucket_ms
        serving.warm_up(states, values_TSF[self.read : place - 1], start_ms)
        last_ms = history.start_ms + (place - 1) * history.bucket_ms
        made, refresh = timed(lambda: serving.step(states, values_TSF[place - 1], last_ms))
        self.read = place
        return OriginForecast(np.array(made.units_SHQ), seconds, refresh)

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
            network = train(before, self.config).network
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
