"""Stored forecasts, a file for each origin, so that a long run can resume.

Axes: S = series, H = horizon, Q = quantiles.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.problem import OriginForecast


class ForecastStore:
    """Forecasts of one model on one task's origins, in a folder.

    A folder with other settings is emptied: its forecasts belong to another model.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(settings, sort_keys=True, indent=1)
        note = folder / "settings.json"
        if folder.exists() and (not note.exists() or note.read_text() != text):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(text)

    def get(self, origin_ms: int) -> OriginForecast | None:
        """The forecast of an origin, if stored."""
        path = self._path(origin_ms)
        if not path.exists():
            return None
        with np.load(path) as parts:
            fit, refresh = parts["seconds"].tolist()
            return OriginForecast(parts["units_SHQ"], fit, refresh)

    def put(self, origin_ms: int, made: OriginForecast) -> None:
        """Store a forecast atomically."""
        path = self._path(origin_ms)
        half = path.with_suffix(".part")
        with half.open("wb") as file:
            seconds = np.array([made.fit_seconds, made.refresh_seconds])
            np.savez(file, units_SHQ=made.units_SHQ, seconds=seconds)
        half.replace(path)

    def _path(self, origin_ms: int) -> Path:
        day = np.datetime64(origin_ms, "ms").astype("datetime64[D]")
        return self.folder / f"{day}.npz"
