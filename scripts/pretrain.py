"""Pretrain the network that ships, on synthetic shops alone; equal seeds give equal weights.

    python scripts/pretrain.py --updates 4500 --seed 7

Writes `weights.safetensors` and `manifest.json` into model/pretraining, and a copy of the weights
every few hundred updates beside them (`--out` for another folder).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model.config import TrainConfig
from model.networks.quantile_network import QuantileNetwork
from model.pretraining.pretrain import PRETRAINED, PretrainProgress, pretrain
from model.training.checkpoint import dump
from model.training.train import Trained

_EVERY = 500


def main() -> None:
    """Pretrain and write the checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=4_500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "model" / "pretraining"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began_s = time.monotonic()
    columns = (
        TextColumn("pretraining"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
    )  # fmt: skip
    with Progress(*columns) as bars:
        bar = bars.add_task("pretraining", total=arguments.updates, loss="")

        def show(done: PretrainProgress, average: QuantileNetwork) -> None:
            loss = sum(done.loss.values()) / max(len(done.loss), 1)
            bars.update(bar, completed=done.update, loss=f"loss {loss:.4f}")
            if done.update % _EVERY == 0:
                write(average, arguments.out, done, arguments.seed, time.monotonic() - began_s)

        network = pretrain(arguments.updates, seed=arguments.seed, progress=show)
        done = PretrainProgress(arguments.updates)
        write(network, arguments.out, done, arguments.seed, time.monotonic() - began_s)


def write(
    network: QuantileNetwork, folder: Path, done: PretrainProgress, seed: int, seconds: float
) -> None:
    """Write the checkpoint into `folder`."""
    training = TrainConfig(model=PRETRAINED, seed=seed, updates=done.update)
    metrics = {"updates": float(done.update), "seconds": round(seconds, 1)}
    payload, manifest = dump(Trained(network, training, (0, 0), metrics))
    digest = manifest.weights_sha256[:8]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(payload)
    named = replace(manifest, model_id=f"pretrained-{digest}")
    (folder / "manifest.json").write_bytes(named.to_json() + b"\n")


if __name__ == "__main__":
    main()
