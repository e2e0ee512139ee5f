"""Result rows of one task: a row for each model and level, stored as JSON lines.

Axes: O = origins, S = series, H = horizon, Q = quantiles.
"""

import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.accuracy.problem import Floats, OriginForecast
from benchmarks.accuracy.scoring.scores import Doubles, Truth, losses, scores
from model.config import DECILES
from model.quantiles.whole_units import in_units

_PACKAGES: Final = ("torch", "numpy", "lightgbm", "statsforecast", "neuralforecast")


@dataclass(frozen=True)
class TaskResult:
    """Scores of all models of one task; `losses` are those of the bootstrap, by model."""

    task: str
    truth: Truth
    rows: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, tuple[Doubles, Doubles]] = field(default_factory=dict)

    def add(self, name: str, forecasts: list[OriginForecast]) -> None:
        """Score the forecasts of a model, one for each origin."""
        whole_S = self.truth.whole_S
        units_OSHQ = np.stack([in_units(one.units_SHQ, whole_S) for one in forecasts])
        self.losses[name] = losses(self.truth, units_OSHQ)
        for level in self.truth.levels:
            self.rows.append({"model": name, "level": level, **self._row(level, units_OSHQ)})
        seconds = {
            "fit_cpu_seconds": round(sum(one.fit_seconds for one in forecasts), 1),
            "refresh_cpu_seconds": round(
                float(np.median([one.refresh_seconds for one in forecasts])), 3
            ),
        }
        for row in self.rows:
            if row["model"] == name:
                row.update(seconds, quantiles=list(DECILES), versions=_versions())

    def wql(self, name: str, level: str) -> float | None:
        """WQL of a model at a level; None if it has none."""
        for row in self.rows:
            if (row["model"], row["level"]) == (name, level):
                found: float | None = row["wql"]
                return found
        return None

    def level_losses(self, name: str, level: str) -> Doubles:
        """Losses [O, S] of a model at a level."""
        return self.losses[name][0][:, self.truth.levels[level]]

    def _row(self, level: str, units_OSHQ: Floats) -> dict[str, Any]:
        slots = self.truth.levels[level]
        steps = [
            scores(self.truth, units_OSHQ, slots, slice(step, step + 1))
            for step in range(units_OSHQ.shape[2])
        ]
        origins = [
            scores(self.truth.at(number), units_OSHQ[number : number + 1], slots)
            for number in range(len(units_OSHQ))
        ]
        return {
            "series": int(slots.size),
            **scores(self.truth, units_OSHQ, slots),
            "wql_by_origin": [one["wql"] for one in origins],
            "wql_by_step": [one["wql"] for one in steps],
            "pit_coverage_by_step": [one["pit_coverage"] for one in steps],
        }


def write(result: TaskResult, path: Path) -> None:
    """Write the rows, replacing earlier rows of the same models."""
    path.parent.mkdir(exist_ok=True)
    kept = []
    if path.exists():
        new = {row["model"] for row in result.rows}
        earlier = map(json.loads, path.read_text().splitlines())
        kept = [row for row in earlier if row["model"] not in new]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *result.rows]))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
