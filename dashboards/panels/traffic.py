"""The small chart: views per bucket, and trailing 24 h conversion on a second axis.

It shares the source `actuals` and the time axis of the main chart.
"""

import math
from collections.abc import Sequence

from bokeh.models import BasicTicker, ColumnDataSource, Line, LinearAxis, Range1d, VBar
from bokeh.models.formatters import NumeralTickFormatter

from dashboards import palette
from dashboards.chart_columns import nice_ceiling
from dashboards.panels.marks import BAR_SHARE, Bars, add_tooltip, time_chart
from dashboards.snapshot import Snapshot


class TrafficChart:
    """The traffic chart of one session."""

    def __init__(self, actuals: ColumnDataSource, x_range: Range1d) -> None:
        self._actuals = actuals
        self._views_range = Range1d(start=0, end=4)
        self._shares_range = Range1d(start=0, end=0.1)
        self.figure = time_chart("traffic_chart", x_range, self._views_range, ticks=3)
        self.figure.extra_y_ranges = {"conversion": self._shares_range}
        shares = LinearAxis(
            y_range_name="conversion",
            ticker=BasicTicker(desired_num_ticks=3),
            major_label_text_color=palette.CONVERSION,
        )
        shares.update(formatter=NumeralTickFormatter(format="0.[0] %"))
        self.figure.add_layout(shares, "right")
        views = VBar(x="x", width=1, top="views", fill_color=palette.VIEWS, line_color=None)
        hover = VBar(x="x", width=1, top="views", fill_color=palette.ACTUAL, line_color=None)
        self._bars = Bars(self.figure, actuals, views, hover)
        line = Line(x="x", y="conversion", line_color=palette.CONVERSION, line_width=1.75)
        self.figure.add_glyph(actuals, line, y_range_name="conversion")
        add_tooltip(
            self.figure, self._bars,
            ("Views", "@views{0,0}"), ("Conversion, 24 h", "@conversion{0.00 %}"),
        )  # fmt: skip

    def update(self, snapshot: Snapshot) -> None:
        """Fit the axes to the source."""
        if snapshot.info is None:
            return
        self._bars.set_width(snapshot.info.bucket_ms * BAR_SHARE)
        top = nice_ceiling(1.1 * max(self._actuals.data["views"], default=0))
        share_top = share_axis_end(list(self._actuals.data["conversion"]))
        if self._views_range.end != top:
            self._views_range.end = top
        if self._shares_range.end != share_top:
            self._shares_range.end = share_top


def share_axis_end(shares: Sequence[float]) -> float:
    """Return the end of the conversion axis: a round per cent above the largest, at least 4 %.

    >>> share_axis_end([0.05, float("nan")]), share_axis_end([])
    (0.08, 0.04)
    """
    largest = max((share for share in shares if math.isfinite(share)), default=0.0)
    return nice_ceiling(1.25 * 100 * largest) / 100
