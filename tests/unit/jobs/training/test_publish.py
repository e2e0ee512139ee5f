"""A first model is judged on origins it has not learned from, then learns from them too."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.config import TrainConfig
from model.durations import HOUR_MS
from model.evaluation.promotion import Verdict
from model.networks.quantile_network import QuantileNetwork
from model.training.dataset import History
from model.training.run_file import RunFile
from model.training.train import Trained, TrainProgress
from stream.jobs.training import publish
from stream.jobs.training.publish import TrainingOutcome, train_and_publish
from stream.registry.model_registry import Registry
from stream.settings import ModelSettings
from tests.support.model_cases import history_of, real_hours

SETTINGS = ModelSettings(horizon=12, device="cpu", pretrained=False)
#: Seven origins of twelve hours.
HELD_BACK_MS = 7 * 12 * HOUR_MS


class Trainings:
    """Trainings that take no time: seeded random weights, worse by `spoil` in the finish."""

    def __init__(self) -> None:
        self.parts: list[History] = []
        self.configs: list[TrainConfig] = []
        self.starts: list[QuantileNetwork | None] = []
        self.spoil = 0.0

    def __call__(
        self,
        history: History,
        config: TrainConfig,
        _: object,
        __: RunFile | None,
        *,
        start: QuantileNetwork | None = None,
    ) -> Trained:
        self.parts.append(history)
        self.configs.append(config)
        self.starts.append(start)
        small = replace(config, model=replace(config.model, hidden=8, layers=1, rank=4))
        torch.manual_seed(1)
        network = QuantileNetwork(small.model)
        if start is not None:
            with torch.no_grad():
                network.heads.write.bias.add_(self.spoil)
        metrics = {"updates": 40.0, "seconds": 2.0}
        return Trained(network, small, (history.start_ms, history.end_ms), metrics)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Replaces the training itself."""
    made = Trainings()
    monkeypatch.setattr(publish, "train_or_refuse", made)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def decided(monkeypatch: pytest.MonkeyPatch, *, promoted: bool) -> None:
    """Let every comparison of five origins end alike."""
    end_ms = HISTORY.end_ms - 5
    verdict = Verdict(promoted, "as the test says", 0.5, 0.4, origins_ms=(end_ms,))
    monkeypatch.setattr(publish, "compare", lambda *_, **__: verdict)


HISTORY = history_of(real_hours(days=21, series=6))


def run(registry: Registry, *, history: History = HISTORY, promote: bool = True) -> TrainingOutcome:
    def ignore(_: TrainProgress) -> None: ...

    return train_and_publish(
        history, SETTINGS, registry, promote=promote, progress=ignore, max_seconds=100.0
    )


def test_a_winner_then_learns_from_the_origins_of_its_comparison(
    trainings: Trainings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, promoted=True)
    outcome = run(registry)

    judged, finished = trainings.parts
    assert judged.end_ms == HISTORY.end_ms - HELD_BACK_MS
    assert finished.end_ms == HISTORY.end_ms
    assert trainings.starts[0] is None
    assert trainings.starts[1] is not None
    assert [config.max_seconds for config in trainings.configs] == [80.0, 20.0]
    assert trainings.configs[1].learning_rate < trainings.configs[0].learning_rate
    assert outcome.promoted
    assert outcome.model_id == registry.champion()
    assert registry.manifest(outcome.model_id).span_ms[1] == HISTORY.end_ms
    assert outcome.metrics["updates"] == 80
    assert outcome.metrics["wql"] == 0.4
    assert registry.looks() == [(HISTORY.end_ms - 5, HISTORY.end_ms)]
    assert registry.audit()[-1]["note"] == "as the test says"


def test_a_winner_that_the_finish_would_spoil_serves_as_it_won(
    trainings: Trainings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, promoted=True)
    trainings.spoil = 3.0
    outcome = run(registry)

    assert len(trainings.parts) == 2
    assert outcome.promoted
    assert registry.manifest(outcome.model_id).span_ms[1] == HISTORY.end_ms - HELD_BACK_MS


def test_a_loser_is_stored_with_the_reason(
    trainings: Trainings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, promoted=False)
    outcome = run(registry)

    assert len(trainings.parts) == 1
    assert registry.champion() is None
    last = registry.audit()[-1]
    assert (last["action"], last["note"]) == ("refuse", "as the test says")
    assert last["look_ms"] == [HISTORY.end_ms - 5, HISTORY.end_ms]
    assert outcome.verdict == f"{outcome.model_id} stored, not promoted: as the test says"


def test_a_winner_that_nobody_wants_promoted_is_stored_with_its_verdict(
    trainings: Trainings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, promoted=True)
    outcome = run(registry, promote=False)

    assert (outcome.promoted, registry.champion()) == (False, None)
    assert registry.manifest(outcome.model_id).span_ms[1] == HISTORY.end_ms
    assert registry.audit()[-1]["note"] == "--promote was not given; as the test says"


def test_a_history_too_short_to_judge_is_learned_whole_and_not_promoted(
    trainings: Trainings, registry: Registry
) -> None:
    short = replace(HISTORY, values_TSF=HISTORY.values_TSF[:100])
    outcome = run(registry, history=short)

    assert [part.end_ms for part in trainings.parts] == [short.end_ms]
    assert not outcome.promoted
    assert "give at least 108" in outcome.reason
    assert registry.looks() == []


def test_a_first_model_is_compared_with_the_fallback_and_the_next_with_it(
    trainings: Trainings, registry: Registry
) -> None:
    """The random weights lose; made the champion by hand, they are the opponent."""
    first = run(registry)
    assert not first.promoted
    assert "of exponential-smoothing" in first.reason

    registry.promote(first.model_id)
    second = run(registry)
    assert trainings.configs[0].model.horizon == 12
    assert f"of {first.model_id}, change +0.0 %" in second.reason
