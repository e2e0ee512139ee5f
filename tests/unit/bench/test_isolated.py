"""A benchmark runs in its own deployment."""

from pathlib import Path

import pytest

from stream.bench.isolated import isolated_settings
from stream.settings import Settings


def test_the_deployment_stays_untouched_and_nothing_is_left(tmp_path: Path) -> None:
    """The benchmark uses another registry and another folder for scores."""
    theirs = tmp_path / "registry"
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "model": {"registry": str(theirs)}, "accuracy": {"path": "s3://a"}}
    )
    with isolated_settings(settings) as own, isolated_settings(settings) as another:
        assert own.data_dir.is_dir()
        assert own.data_dir != another.data_dir
        assert own.registry_path == str(own.data_dir / "registry")
        assert own.accuracy.path is None
        assert own.model.horizon == settings.model.horizon
        (own.data_dir / "log").write_text("what a broker leaves")
    assert list(tmp_path.iterdir()) == []


def test_after_a_failure_the_logs_stay(tmp_path: Path) -> None:
    """They are needed to find the fault."""
    with pytest.raises(RuntimeError), isolated_settings(Settings(data_dir=tmp_path)) as own:
        raise RuntimeError
    assert own.data_dir.is_dir()


def test_after_ctrl_c_nothing_is_left(tmp_path: Path) -> None:
    """There is no fault to find then."""
    with pytest.raises(KeyboardInterrupt), isolated_settings(Settings(data_dir=tmp_path)):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
