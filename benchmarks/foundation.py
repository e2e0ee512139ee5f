"""What a foundation model costs as challenger, and whether its sums are calibrated.

PYTHONPATH=. python benchmarks/foundation.py

1. CPU time for one series, of networks as large as the released ones, with random weights: time
   does not depend on their values. One thread.
2. Coverage of the 80 % band of sums on AR(1) processes, given the true forecast of each bucket, for
   several ways to join the buckets.

Axes: S = series, T = buckets, H = horizon, L = levels.
"""

import time
from typing import Any

import numpy as np
import torch

from model.foundation.sums import normal_scores, persistence, sum_quantiles

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Parts of the T5 configuration of the released models.
BOLT_SIZES = {
    "chronos-bolt-tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
    "chronos-bolt-small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
}
SERIES, HORIZON, PROCESSES = 64, 28, 1_500


def bolt(sizes: dict[str, int]) -> Any:
    """A Chronos-Bolt pipeline with random weights."""
    from chronos import ChronosBoltPipeline
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    forecasts = {
        "context_length": 2048, "prediction_length": 64, "input_patch_size": 16,
        "input_patch_stride": 16, "use_reg_token": True, "quantiles": list(DECILES),
    }  # fmt: skip
    config = T5Config(
        **sizes, d_kv=64, num_decoder_layers=sizes["num_layers"], decoder_start_token_id=0,
        chronos_config=forecasts,
    )  # fmt: skip
    return ChronosBoltPipeline(ChronosBoltModelForForecasting(config).eval())


def chronos_2() -> Any:
    """A Chronos-2 pipeline with random weights."""
    from chronos import Chronos2Pipeline
    from chronos.chronos2 import Chronos2Model

    forecasts = {
        "context_length": 8192, "input_patch_size": 16, "input_patch_stride": 16,
        "output_patch_size": 16, "max_output_patches": 64, "use_reg_token": True,
        "use_arcsinh": True, "quantiles": [0.01, 0.05, *DECILES, 0.95, 0.99],
    }  # fmt: skip
    config = Chronos2Model.config_class(
        d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, chronos_config=forecasts
    )
    return Chronos2Pipeline(Chronos2Model(config).eval())


def print_times() -> None:
    """CPU milliseconds for one series and forecast, on one thread."""
    torch.set_num_threads(1)
    pipelines = {name: bolt(sizes) for name, sizes in BOLT_SIZES.items()} | {
        "chronos-2": chronos_2()
    }
    for name, pipeline in pipelines.items():
        millions = sum(part.numel() for part in pipeline.model.parameters()) / 1e6
        for context in (365, 2016):
            history_ST = torch.rand(SERIES, context) * 5
            inputs = history_ST[:, None] if name == "chronos-2" else history_ST
            began_s = time.process_time()
            pipeline.predict(inputs, prediction_length=HORIZON)
            spent_ms = 1000 * (time.process_time() - began_s) / SERIES
            print(f"{name:20} {millions:4.0f} M  {context:5} buckets  {spent_ms:6.1f} ms")
    own_SHL = np.sort(np.random.default_rng(0).gamma(1, 5, (SERIES, HORIZON, 9)), axis=2)
    own_SHL = own_SHL.astype(np.float32)
    half_S = np.full(SERIES, 0.5, np.float32)
    began_s = time.process_time()
    sum_quantiles(own_SHL, own_SHL, half_S, levels=DECILES, quantiles=DECILES, seed=7)
    print(f"sums of {HORIZON} buckets {1000 * (time.process_time() - began_s) / SERIES:.1f} ms")


def coverage(share: float, past: int, joined: str) -> float:
    """Coverage of the 80 % band, mean over the horizon from step 2 on."""
    rng = np.random.default_rng(3)
    values_TS = np.zeros((past + HORIZON, PROCESSES))
    values_TS[0] = rng.normal(scale=1 / np.sqrt(1 - share**2), size=PROCESSES)
    for t in range(1, len(values_TS)):
        values_TS[t] = share * values_TS[t - 1] + rng.normal(size=PROCESSES)
    values_TS += 100
    steps_H = np.arange(1, HORIZON + 1)
    mean_SH = 100 + (values_TS[past - 1] - 100)[:, None] * share**steps_H
    spread_H = np.sqrt(np.cumsum(share ** (2 * (steps_H - 1))))
    own_SHL = (mean_SH[:, :, None] + spread_H[:, None] * normal_scores(DECILES)).astype(np.float32)
    lasting_S = {
        "independent": np.zeros(PROCESSES, np.float32),
        "estimated": persistence(values_TS[:past].astype(np.float32), season=7),
        "true": np.full(PROCESSES, share, np.float32),
    }
    if joined == "added":
        sums_SHQ = np.cumsum(own_SHL, axis=1)
    else:
        sums_SHQ = sum_quantiles(
            own_SHL, own_SHL, lasting_S[joined], levels=DECILES, quantiles=DECILES, seed=7
        )
    actual_SH = np.cumsum(values_TS[past:], axis=0).T
    inside_SH = (sums_SHQ[:, :, 0] <= actual_SH) & (actual_SH <= sums_SHQ[:, :, -1])
    return float(inside_SH[:, 1:].mean())


def main() -> None:
    """Print both tables."""
    print_times()
    ways = ("added", "independent", "estimated", "true")
    print("coverage", *ways)
    for share in (0.0, 0.3, 0.6, 0.9):
        for past in (60, 300):
            found = [f"{coverage(share, past, way):.3f}" for way in ways]
            print(f"persistence {share}, {past} buckets of history:", *found)


if __name__ == "__main__":
    main()
