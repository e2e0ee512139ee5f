"""Draws the plots of the batch path as PNG files: demand with forecast bands, importances.

Axes: T = buckets, H = horizon, Q = quantiles.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.evaluation.importance import Importances
from model.quantiles.bands import main_band
from stream.errors import UsageError

Floats = NDArray[np.floating]

_INK: Final = "#1f2933"
_ACTUAL: Final = "#52606d"
_FORECAST: Final = "#0b7285"
_SHOWN: Final = 6


def plot_forecasts(
    path: Path,
    panels: list[tuple[str, NDArray[np.int64], Floats, list[tuple[int, Floats]]]],
    *,
    bucket_ms: int,
    quantiles: tuple[float, ...],
    title: str,
) -> None:
    """Draw up to six panels in one column.

    A panel is a name, bucket starts [T], units [T], and (origin_ms, [H, Q]) of its forecasts.
    Raises UsageError if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = panels[:_SHOWN]
    figure = Figure(figsize=(11, 2.6 * len(shown) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axis, (name, start_T, units_T, forecasts) in zip(axes, shown, strict=True):
        _panel(axis, name, start_T, units_T, forecasts, bucket_ms=bucket_ms, quantiles=quantiles)
    axes[0].legend(loc="upper left", frameon=False, fontsize=8, ncols=4)
    figure.suptitle(title, color=_INK, fontsize=12, x=0.01, ha="left")
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UsageError(f"--plot {path}: cannot be written ({error})") from None


def plot_importances(path: Path, importances: Importances, *, title: str) -> None:
    """Draw a bar per input, the most important on top. Raises UsageError if writing fails."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = importances.inputs[::-1]
    figure = Figure(figsize=(8, 0.24 * len(shown) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.barh(
        [one.name for one in shown],
        [one.wql_rise for one in shown],
        xerr=[one.deviation for one in shown],
        color=_FORECAST,
        ecolor=_ACTUAL,
    )
    axis.axvline(0, color=_INK, linewidth=0.8)
    axis.tick_params(labelsize=8)
    axis.margins(y=0.01)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_xlabel(f"rise of WQL (with all inputs: {importances.wql:.3f})", fontsize=8)
    figure.suptitle(title, color=_INK, fontsize=11, x=0.01, ha="left")
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UsageError(f"--importance {path}: cannot be written ({error})") from None


def _panel(
    axis: Any,
    name: str,
    start_T: NDArray[np.int64],
    units_T: Floats,
    forecasts: list[tuple[int, Floats]],
    *,
    bucket_ms: int,
    quantiles: tuple[float, ...],
) -> None:
    """Draw one series: its demand, and for each origin the median and nested bands."""
    axis.plot(start_T.astype("datetime64[ms]"), units_T, color=_ACTUAL, lw=0.9, label="actual")
    middle = int(np.argmin(np.abs(np.array(quantiles) - 0.5)))
    for number, (origin_ms, block_HQ) in enumerate(forecasts):
        steps = (origin_ms + bucket_ms * np.arange(len(block_HQ))).astype("datetime64[ms]")
        first, last = main_band(quantiles)
        for inward in range(middle - first):
            low, high = first + inward, last - inward
            label = (
                f"{quantiles[high] - quantiles[low]:.0%} band" if not (number or inward) else None
            )
            axis.fill_between(
                steps,
                block_HQ[:, low],
                block_HQ[:, high],
                color=_FORECAST,
                alpha=0.13,
                lw=0,
                label=label,
            )
        label = None if number else "median forecast"
        axis.plot(steps, block_HQ[:, middle], color=_FORECAST, lw=1.4, label=label)
        axis.axvline(steps[0], color=_INK, lw=0.6, ls=":")
    axis.set_title(name, loc="left", fontsize=9, color=_INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=_INK)
    axis.set_ylim(bottom=0)
    axis.margins(x=0.01)
