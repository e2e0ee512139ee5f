"""Processes that train together give the result of one process on the same batches."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.errors import InvalidValues
from model.training.ranks import Ranks
from tests.support.paths import ROOT
from tests.support.train_together import main


def _results(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    results: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return results, load_file(folder / f"{name}.safetensors")


@pytest.mark.slow
def test_two_processes_have_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    """Same global batch, same loss: gradients are summed over lanes, not averaged by process."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = ["-m", "tests.support.train_together", str(tmp_path)]
    together = [*torchrun, "--nproc-per-node", "2", *script]
    done = subprocess.run(together, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    main(tmp_path)

    alone, alone_weights = _results(tmp_path, "1-0")
    for name in ("2-0", "2-1"):
        results, weights = _results(tmp_path, name)
        assert results["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        for key in ("validation_loss", "updates"):
            assert results["metrics"][key] == pytest.approx(alone["metrics"][key], rel=1e-4)
        for part, weight in weights.items():
            torch.testing.assert_close(weight, alone_weights[part], rtol=0, atol=1e-4)


def test_lanes_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(InvalidValues, match="16 lanes of a group cannot be shared by 3"):
        Ranks(0, 3).share(16)
