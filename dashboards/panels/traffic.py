"""The small chart below: views per bucket, and the trailing day's conversion on its own axis.

It draws from the main chart's `actuals` and shares its time axis.
"""

import math

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    HoverTool,
    LinearAxis,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.plotting import figure

from dashboards import palette
from dashboards.columns import nice_ceiling
from dashboards.panels.forecast import BAR, FORMATS, WHEN, day_ticks, tip
from dashboards.snapshot import Snapshot


class TrafficChart:
    """The views and conversion of one session's series."""

    def __init__(self, actuals: ColumnDataSource, x_range: Range1d) -> None:
        self.actuals = actuals
        self.figure = figure(
            name="traffic_chart",
            x_range=x_range,
            y_range=Range1d(0, 4),
            x_axis_type="datetime",
            toolbar_location=None,
            tools="",
            sizing_mode="stretch_both",
            min_height=80,
        )
        fig = self.figure
        fig.extra_y_ranges = {"conversion": Range1d(0, 0.1)}
        fig.xaxis.formatter = day_ticks()
        fig.yaxis.formatter = NumeralTickFormatter(format="0,0")
        fig.yaxis.ticker.desired_num_ticks = 3
        fig.yaxis.ticker.min_interval = 1
        axis = LinearAxis(
            y_range_name="conversion", formatter=NumeralTickFormatter(format="0.[0] %"),
            axis_line_color=None, major_label_text_color=palette.CONVERSION,
        )  # fmt: skip
        axis.ticker.desired_num_ticks = 3
        fig.add_layout(axis, "right")
        self._bars = fig.vbar(
            "x", source=actuals, width=1, top="views", fill_color=palette.VIEWS, line_color=None,
            hover_fill_color=palette.ACTUAL, hover_line_color=None,
        )  # fmt: skip
        fig.line(
            "x", "conversion", source=actuals, y_range_name="conversion",
            line_color=palette.CONVERSION, line_width=1.75,
        )  # fmt: skip
        rows = (("Views", "@views{0,0}"), ("Conversion, 24 h", "@conversion{0.00 %}"))
        fig.add_tools(
            HoverTool(
                renderers=[self._bars], tooltips=tip(WHEN, *rows), formatters=FORMATS,
                mode="vline", point_policy="follow_mouse", show_arrow=False,
                attachment="horizontal",
            )
        )  # fmt: skip

    def update(self, snapshot: Snapshot) -> None:
        """Fit the axes to what the source holds."""
        if snapshot.info is None:
            return
        for glyph in (self._bars.glyph, self._bars.hover_glyph):
            glyph.width = snapshot.info.bucket_ms * BAR
        shares = np.asarray(self.actuals.data["conversion"], float)
        top = nice_ceiling(1.1 * max(self.actuals.data["views"], default=0))
        share = 100 * float(np.nanmax(shares, initial=0)) if np.isfinite(shares).any() else 0
        share_top = nice_ceiling(1.25 * share) / 100 if share > 0 and math.isfinite(share) else 0.04
        if self.figure.y_range.end != top:
            self.figure.y_range.end = top
        if self.figure.extra_y_ranges["conversion"].end != share_top:
            self.figure.extra_y_ranges["conversion"].end = share_top
