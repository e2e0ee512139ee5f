"""The models of the accuracy benchmark by name."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.accuracy.ours import Carried, Ensemble, Surgecast, configured, zero_shot
from benchmarks.accuracy.peers.statistical import SeasonalNaive, Statistical
from benchmarks.accuracy.problem import Peer, Problem
from model.baselines.exponential_smoothing import SmoothingForecaster
from model.baselines.seasonal import SeasonalForecaster
from model.baselines.seasonal_naive import SeasonalNaiveForecaster
from model.pretraining.shipped import shipped

STATISTICAL: Final = ("AutoETS", "AutoTheta", "DynamicOptimizedTheta", "CrostonSBA")
NEURAL: Final = ("NHITS", "DeepAR")
#: The product's own: those that learn, and its baselines.
OURS: Final = ("surgecast", "surgecast-retrained")
#: The pretrained network, which has seen nothing of the panel.
ZERO_SHOT: Final = "zero-shot"
BASELINES: Final[dict[str, type[SeasonalForecaster[Any]]]] = {
    "seasonal-naive": SeasonalNaiveForecaster,
    "exponential-smoothing": SmoothingForecaster,
}
#: The last season repeated, as the panels' README has it; the denominator of pooled figures.
NAIVE: Final = "snaive"
PEERS: Final = (NAIVE, *BASELINES, "LightGBM", *STATISTICAL, *NEURAL)
MODELS: Final = (*OURS, ZERO_SHOT, *PEERS)
#: What runs without `--models`: cheap enough for all panels.
USUAL: Final = ("surgecast", ZERO_SHOT, NAIVE, *BASELINES, "LightGBM", "AutoETS")
#: Settings of `surgecast-retrained` at each later origin.
RETRAINED: Final[dict[str, Any]] = {
    "updates": 200,
    "learning_rate": 1e-3,
    "finish_share": 0.8,
    "validate_every": 1_000,
}
#: With more origins than this, refitted models are refitted at every tenth.
_FEW_ORIGINS: Final = 10


@dataclass(frozen=True, slots=True)
class Created:
    """How to make a model, and the settings its forecasts depend on."""

    create: Callable[[], Peer]
    settings: dict[str, Any]


def model(
    name: str, problem: Problem, folder: Path, *, seeds: int, overrides: dict[str, Any]
) -> Created:
    """The model `name`; it may keep weights in `folder`. Raises KeyError for an unknown name."""
    refit_every = 10 if len(problem.places) > _FEW_ORIGINS else 1
    if name in OURS:
        return _ours(problem, folder, name == "surgecast-retrained", seeds, overrides)
    if name == NAIVE:
        return Created(lambda: SeasonalNaive(problem), {})
    if name == ZERO_SHOT or name in BASELINES:
        return _untrained(name, problem)
    if name == "LightGBM":
        from benchmarks.accuracy.peers.trees import LightGbm, TreeSettings

        known = TreeSettings.__dataclass_fields__.keys() & overrides.keys()
        trees = replace(TreeSettings(), **{key: overrides[key] for key in known})
        return Created(
            lambda: LightGbm(problem, trees, refit_every=refit_every),
            {"refit_every": refit_every, **asdict(trees)},
        )
    if name in NEURAL:
        from benchmarks.accuracy.peers.neural import Neural

        return Created(lambda: Neural(problem, name, steps=500), {"steps": 500})
    if name in STATISTICAL:
        settings = {"refit_every": refit_every}
        return Created(lambda: Statistical(problem, name, refit_every=refit_every), settings)
    raise KeyError(name)


def _untrained(name: str, problem: Problem) -> Created:
    if name == ZERO_SHOT:
        weights = {"weights": shipped()[1].weights_sha256}
        return Created(lambda: Carried(problem, lambda _: zero_shot(problem)), weights)
    bucket_ms = problem.task.history.bucket_ms
    baseline = BASELINES[name](horizon=problem.horizon, bucket_ms=bucket_ms)
    return Created(lambda: Carried(problem, lambda _: baseline), {})


def _ours(
    problem: Problem, folder: Path, again: bool, seeds: int, overrides: dict[str, Any]
) -> Created:
    retrained = RETRAINED if again else None
    configs = [configured(problem, seed=seed, overrides=overrides) for seed in range(seeds)]

    def create() -> Peer:
        members = []
        for config in configs:
            weights = folder / f"seed-{config.seed}"
            weights.mkdir(parents=True, exist_ok=True)
            members.append(Surgecast(problem, weights, config, retrained=retrained))
        return members[0] if seeds == 1 else Ensemble(members)

    return Created(create, {"configs": [asdict(one) for one in configs], "retrained": retrained})
