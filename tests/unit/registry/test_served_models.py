"""What a deployment serves reads the shop's wall clock, whatever it was trained with."""

from pathlib import Path

import pytest

from model.durations import DAY_MS, HOUR_MS
from stream.errors import UsageError
from stream.jobs.training.incumbent import incumbent
from stream.jobs.training.trainer import Trainer
from stream.registry.model_registry import Registry
from stream.registry.served_models import ServedModels
from stream.settings import ModelSettings, load_settings
from tests.support.model_cases import START_MS, history_of, random_model, real_hours

TOKYO = "Asia/Tokyo"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


def test_the_pretrained_network_and_a_champion_read_the_shops_clock(registry: Registry) -> None:
    served = ServedModels(registry, ModelSettings(), bucket_ms=HOUR_MS, timezone=TOKYO)
    before = served.champion()
    champion = registry.publish(random_model(1, span_end_ms=START_MS), promote=True)

    assert before is not None
    assert served.load(before).config.timezone == TOKYO
    assert served.champion() == champion
    assert served.load(champion).config.timezone == TOKYO
    assert registry.load(champion).config.timezone == "UTC"


def test_a_challenger_is_trained_and_compared_by_the_shops_clock(registry: Registry) -> None:
    settings = load_settings(
        window={"timezone": TOKYO}, model={"horizon": 6},
        trainer={"updates": 2, "origins": 2, "series": 5},
    )  # fmt: skip
    trainer = Trainer(
        settings, registry,
        history=lambda: history_of(real_hours(days=14, series=5)),
        hand_over_states=lambda _: None, announce=lambda _: None,
        now_ms=lambda: START_MS + 14 * DAY_MS,
    )  # fmt: skip
    result = trainer.once("by hand")

    assert result.model_id is not None, result.reason
    assert registry.network(result.model_id).config.timezone == TOKYO
    opponent = incumbent(registry, settings.model, bucket_ms=HOUR_MS, timezone=TOKYO).network
    assert opponent is not None
    assert opponent.config.timezone == TOKYO


def test_an_unknown_zone_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"window.timezone .*'Mars/Olympus' is not a time zone"):
        load_settings(window={"timezone": "Mars/Olympus"})
