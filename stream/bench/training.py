"""`surgecast bench training`: series-steps per second, in float32 and with a bfloat16 encoder.

A series-step is one bucket of one lane through network, heads, loss and gradient. Preparation of
the history and validation are not measured.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from model.config import ModelConfig, Precision, TrainConfig
from model.durations import HOUR_MS
from model.training.dataset import History
from model.training.train import TrainProgress, train
from stream.bench.inference import closed_bucket
from stream.bench.report import Row
from stream.settings import ModelSettings

_WARM_UPDATES = 3
_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def bench_training(
    settings: ModelSettings,
    *,
    device: str,
    lanes: int,
    updates: int,
    notify: Callable[[str], None],
) -> list[Row]:
    """One row per precision; `lanes` series are trained in parallel, `updates` are timed."""
    values_TSF = np.stack([closed_bucket(400, seed=seed) for seed in range(28 * 24)])
    history = History(values_TSF, 0, HOUR_MS, [str(slot) for slot in range(400)])
    model = ModelConfig(
        horizon=settings.horizon,
        bucket_ms=HOUR_MS,
        quantiles=settings.quantiles,
        architecture=settings.architecture,
    )
    rows = []
    for precision in _PRECISIONS:
        notify(f"{precision}: {updates} updates of {lanes} lanes")
        config = TrainConfig(
            model=model,
            updates=updates + _WARM_UPDATES,
            validate_every=10**9,
            finish_share=0.0,
            chunk=48,
            lanes=lanes,
            origins=16,
            device=device,
            precision=precision,
            threads=torch.get_num_threads(),
        )
        marks: list[float] = []

        def note(at: TrainProgress, marks: list[float] = marks) -> None:
            if at.share < 1.0:
                marks.append(time.perf_counter())

        train(history, config, note)
        seconds = marks[-1] - marks[_WARM_UPDATES - 1]
        timed = len(marks) - _WARM_UPDATES
        facts = {
            "lanes": lanes,
            "chunk": config.chunk,
            "ms_per_update": round(1e3 * seconds / timed, 1),
        }
        rows.append(
            Row(
                f"training_{precision}",
                round(lanes * config.chunk * timed / seconds),
                "series-steps/s",
                facts,
            )
        )
    return rows
