"""NHITS and DeepAR of neuralforecast: trained once before the first origin, like Surgecast.

Both read the calendar of past and future buckets; NHITS also order lines and revenue of the past.
At an origin they re-read their context without retraining. On the hourly task they train on the
midnights of the last year only, 16 series per update: the library materialises every window of a
batch, which for the full history and 32 series would take 38 GB.

Axes: S = series, H = horizon, Q = quantiles, C = calendar.
"""

import logging
from typing import Any, Final

import numpy as np
import torch

from benchmarks.accuracy.peers.statistical import seasonally_filled
from benchmarks.accuracy.problem import Floats, OriginForecast, Problem, timed
from model.config import DECILES
from model.inputs.carried_statistics import ORDERS, REVENUE

_LEVELS: Final = (20, 40, 60, 80)
#: Windows an update; fewer for DeepAR, whose LSTM steps cost much more.
_WINDOWS: Final = {"NHITS": 256, "DeepAR": 64}
#: Context in weeks of the hourly task, for the same reason.
_WEEKS: Final = {"NHITS": 2, "DeepAR": 1}
_HOURLY: Final = {"step_size": 24, "batch_size": 16}
#: Context in buckets of a week or longer.
_WIDE: Final = 26


class Neural:
    """One network of neuralforecast."""

    def __init__(self, problem: Problem, name: str, *, steps: int, threads: int = 1) -> None:
        self.problem = problem
        self.name = name
        self.steps = steps
        self.threads = threads
        self.library: Any = None
        calendar_TC = problem.calendar_TC
        varying = calendar_TC[: problem.places[0]].std(axis=0) > 0
        self.calendar_TC = calendar_TC[:, varying]
        self.known = [f"calendar_{place}" for place in range(self.calendar_TC.shape[1])]
        self.units_TS = seasonally_filled(problem.known_units_TS, problem.task.season)
        week = problem.week
        self.context = _WIDE if week == 1 else (_WEEKS[name] if problem.hourly else 8) * week

    def forecast(self, place: int) -> OriginForecast:
        """Fit before the first origin, then read the context before `place` and forecast."""
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        torch.set_num_threads(self.threads)
        seconds = 0.0
        if self.library is None:
            _, seconds = timed(self._fit)
        units_SHQ, refresh = timed(lambda: self._predict(place))
        return OriginForecast(units_SHQ, seconds, refresh)

    def _model(self) -> Any:
        from neuralforecast.losses.pytorch import DistributionLoss, MQLoss
        from neuralforecast.models import NHITS, DeepAR

        shared: dict[str, Any] = {
            "h": self.problem.horizon,
            "input_size": self.context,
            "windows_batch_size": _WINDOWS[self.name],
            "futr_exog_list": self.known,
            "max_steps": self.steps,
            "scaler_type": "standard",
            "random_seed": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
        }
        if self.problem.hourly:
            shared |= _HOURLY
        if self.name == "NHITS":
            loss = MQLoss(quantiles=list(DECILES))
            return NHITS(hist_exog_list=["orders", "revenue"], loss=loss, **shared)
        loss = DistributionLoss("StudentT", level=list(_LEVELS), return_params=False)
        return DeepAR(loss=loss, **shared)

    def _frame(self, first: int, place: int) -> Any:
        """Long table of the scored series over buckets `first` to `place`."""
        import pandas as pd

        values_TSF = self.problem.task.history.values_TSF[first:place, : self.problem.task.scored]
        buckets, series = values_TSF.shape[:2]
        columns: dict[str, Any] = {
            "unique_id": np.repeat(np.arange(series), buckets),
            "ds": np.tile(np.arange(first, place), series),
            "y": self.units_TS[first:place].T.reshape(-1),
            "orders": np.log1p(values_TSF[:, :, ORDERS]).T.reshape(-1),
            "revenue": np.log1p(np.maximum(values_TSF[:, :, REVENUE], 0)).T.reshape(-1),
        }
        for number, column in enumerate(self.known):
            columns[column] = np.tile(self.calendar_TC[first:place, number], series)
        return pd.DataFrame(columns)

    def _fit(self) -> None:
        from neuralforecast import NeuralForecast

        self.library = NeuralForecast(models=[self._model()], freq=1)
        place = self.problem.places[0]
        first = max(0, place - 52 * self.problem.week) if self.problem.hourly else 0
        self.library.fit(df=self._frame(first, place))

    def _predict(self, place: int) -> Floats:
        import pandas as pd

        horizon, series = self.problem.horizon, self.problem.task.scored
        ahead: dict[str, Any] = {
            "unique_id": np.repeat(np.arange(series), horizon),
            "ds": np.tile(np.arange(place, place + horizon), series),
        }
        for number, column in enumerate(self.known):
            ahead[column] = np.tile(self.calendar_TC[place : place + horizon, number], series)
        context = self._frame(max(0, place - max(16 * self.problem.week, _WIDE)), place)
        made = self.library.predict(df=context, futr_df=pd.DataFrame(ahead), verbose=False)
        names = [column for column in made.columns if column not in ("unique_id", "ds")]
        block = made[_in_order(names)].to_numpy().reshape(series, horizon, len(DECILES))
        return np.maximum(np.sort(block, axis=-1), 0).astype(np.float32)


def _in_order(names: list[str]) -> list[str]:
    """The nine columns of quantiles, lowest first; the mean of a distribution is left out."""
    lows = [n for level in reversed(_LEVELS) for n in names if f"-lo-{level}" in n]
    highs = [n for level in _LEVELS for n in names if f"-hi-{level}" in n]
    middle = [name for name in names if name.endswith("-median")]
    return [*lows, *middle, *highs]
