"""Training on the history of a shop, from the pretrained network where it fits.

A network of another shape (architecture, width, levels) is trained from random weights.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from model.config import TrainConfig
from model.durations import DAY_MS
from model.history import History
from model.pretraining.shipped import shipped, start_for
from model.training.run_file import RunFile
from model.training.train import Trained, TrainProgress, train

#: Learning rate from pretrained weights, as a share of that from random ones.
_RATE: Final = 0.33
#: Days of history from which the calendar may have terms of the year.
_YEAR_TERMS_DAYS: Final = 540


def finetune(
    history: History,
    config: TrainConfig,
    progress: Callable[[TrainProgress], None] | None = None,
    *,
    run_file: RunFile | None = None,
) -> Trained:
    """Train on `history`; see `model.training.train.train`.

    With `config.pretrained` the weights start from the network that ships, and the learning rate is
    lower.
    """
    start = start_for(config.model) if config.pretrained else None
    if start is None:
        return train(history, config, progress, run_file=run_file)
    slower = replace(config, learning_rate=_RATE * config.learning_rate)
    trained = train(history, slower, progress, run_file=run_file, start=start)
    trained.parent = shipped()[1].model_id
    return trained


def for_history(config: TrainConfig, history: History) -> TrainConfig:
    """The configuration for the span of a history: terms of the year from 18 months on."""
    span_ms = history.buckets * history.bucket_ms
    year_terms = span_ms >= _YEAR_TERMS_DAYS * DAY_MS
    return replace(config, model=replace(config.model, year_terms=year_terms))
