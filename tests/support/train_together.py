"""The script of each process in the distributed training test, under torchrun or alone."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from model.training.ranks import process_group
from model.training.train import TrainProgress, train
from tests.support.model_cases import history_of, real_hours, small_training


def main(folder: Path) -> None:
    """Train without dropout, whose masks differ by process; write weights and losses."""
    config = small_training(lanes=8, precision="float32")
    config = replace(config, model=replace(config.model, dropout=0.0))
    losses: list[float] = []

    def note(at: TrainProgress) -> None:
        losses.append(at.loss)

    with process_group("cpu") as ranks:
        trained = train(history_of(real_hours(days=14, series=10)), config, note)
        save_file(trained.network.state_dict(), folder / f"{ranks.size}-{ranks.rank}.safetensors")
        results = {"losses": losses, "metrics": trained.metrics}
        (folder / f"{ranks.size}-{ranks.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
