"""The main chart: units sold per bucket, the open bucket, and the forecast fan.

Sources: `actuals` (closed buckets), `ahead` (their one-step-ahead forecasts), `open_bucket`, `fan`
(nested bands and median of the newest forecast). Closed buckets are streamed, the others are
patched; whole columns are sent only after the selection changes.
"""

from typing import Final

from bokeh.models import Line, Range1d, VArea, VBar
from bokeh.models.annotations import Label, Span

from dashboards import chart_columns, palette, text
from dashboards.panels.marks import BAR_SHARE, Bars, add_tooltip, time_chart
from dashboards.snapshot import SeriesView, Snapshot, chart_ms
from dashboards.source_sync import empty, sync

_MIN_PAST: Final = 12  # closed buckets on the axis, even if fewer exist
_BAND_ALPHAS: Final = (0.22, 0.24, 0.28, 0.34)


class ForecastChart:
    """The main chart of one session; `series_id` is the series in its sources."""

    def __init__(self) -> None:
        self.actuals = empty("actuals", *chart_columns.ACTUALS)
        self.ahead = empty("ahead", *chart_columns.AHEAD)
        self.open_bucket = empty("open_bucket", *chart_columns.OPEN)
        self.fan = empty("fan", *chart_columns.FAN)
        self.series_id: str | None = None
        self._span_ms: int | None = None
        self._last_ms = -1
        self.x_range = Range1d(start=0, end=1)
        self._y_range = Range1d(start=0, end=4)
        self.figure = time_chart("forecast_chart", self.x_range, self._y_range, ticks=6)
        self._draw_bars()
        self._draw_fan()
        self._add_tooltips()
        self._now = Span(
            location=0, dimension="height", line_color=palette.NOW, line_dash=[3, 3],
            line_alpha=0.75, visible=False,
        )  # fmt: skip
        self._now_label = Label(
            x=0, y=0, text="", text_color=palette.NOW, text_font_size="11px", text_align="right",
            text_baseline="top", x_offset=-6, y_offset=-2, visible=False,
        )  # fmt: skip
        self.figure.add_layout(self._now)
        self.figure.add_layout(self._now_label)

    def _draw_bars(self) -> None:
        band = VBar(
            x="x", width=1, bottom="lo", top="hi",
            fill_color=palette.AHEAD, fill_alpha=0.3, line_color=None,
        )  # fmt: skip
        sold = VBar(
            x="x", width=1, top="units",
            fill_color=palette.ACTUAL, fill_alpha=0.92, line_color=None,
        )  # fmt: skip
        hover = VBar(x="x", width=1, top="units", fill_color=palette.OPEN, line_color=None)
        self._band = Bars(self.figure, self.ahead, band)
        self._sold = Bars(self.figure, self.actuals, sold, hover)

    def _draw_fan(self) -> None:
        for n, alpha in enumerate(_BAND_ALPHAS, start=1):
            area = VArea(
                x="x", y1=f"lo{n}", y2=f"hi{n}", fill_color=palette.EXPECTED, fill_alpha=alpha
            )
            self.figure.add_glyph(self.fan, area)
        median = Line(x="x", y="median", line_color=palette.MEDIAN, line_width=2)
        self.figure.add_glyph(self.fan, median)
        open_bar = VBar(
            x="x", width=1, top="units",
            fill_color=palette.OPEN, fill_alpha=0.35, line_color=palette.OPEN, line_width=1,
            hatch_pattern="right_diagonal_line", hatch_color=palette.OPEN, hatch_scale=6,
            hatch_alpha=0.9, hatch_weight=1,
        )  # fmt: skip
        invisible = VBar(x="x", width=1, top="hit", fill_alpha=0, line_alpha=0)
        hover = VBar(
            x="x", width=1, top="hit", fill_color=palette.MEDIAN, fill_alpha=0.18, line_alpha=0
        )
        self._open = Bars(self.figure, self.open_bucket, open_bar)
        self._forecast = Bars(self.figure, self.fan, invisible, hover)

    def _add_tooltips(self) -> None:
        orders = ("Order lines", "@orders{0,0}")
        add_tooltip(
            self.figure, self._sold,
            ("Units", "@units{0,0}"), orders, ("Revenue", "@revenue{0,0.00}"),
            ("Forecast one step ahead", "@expected"),
        )  # fmt: skip
        add_tooltip(
            self.figure, self._open,
            ("Units so far", "@units{0,0}"), orders, ("Forecast total", "@expected"), kind="open",
        )  # fmt: skip
        add_tooltip(
            self.figure, self._forecast,
            ("Median", "@median{0,0.0}"), ("@band", "@lo1{0,0.0} – @hi1{0,0.0}"),
            ("Cumulative median", "@sum{0,0.0}"), kind="forecast",
        )  # fmt: skip

    def update(self, snapshot: Snapshot, view: SeriesView | None) -> None:
        """Show the newest buckets and forecast."""
        info = snapshot.info
        if view is None or info is None:
            return
        bucket_ms = info.bucket_ms
        for bars, share in ((self._sold, BAR_SHARE), (self._open, BAR_SHARE), (self._band, 1.0)):
            bars.set_width(share * bucket_ms)
        self._forecast.set_width(bucket_ms)
        self._stream_closed(view, bucket_ms)
        sync(self.open_bucket, chart_columns.open_columns(view, bucket_ms=bucket_ms))
        sync(self.fan, chart_columns.fan_columns(view))
        self._fit_axes(snapshot, view, bucket_ms)

    def zoom(self, span_ms: int | None) -> None:
        """Show this much history; None shows all."""
        self._span_ms = span_ms
        self.series_id = None

    def _past_ms(self, bucket_ms: int) -> int:
        return max(bucket_ms, min(self._span_ms or chart_ms(bucket_ms), chart_ms(bucket_ms)))

    def _stream_closed(self, view: SeriesView, bucket_ms: int) -> None:
        past_ms = self._past_ms(bucket_ms)
        n_buckets = past_ms // bucket_ms
        oldest_ms = view.closed_through_ms - past_ms
        redraw = view.series_id != self.series_id or view.closed_through_ms <= self._last_ms
        after_ms = oldest_ms - 1 if redraw else max(self._last_ms, oldest_ms - 1)
        actuals, ahead = chart_columns.closed_columns(view, bucket_ms=bucket_ms, after_ms=after_ms)
        if redraw:
            self.actuals.data, self.ahead.data = actuals, ahead
        elif actuals["start"]:
            self.actuals.stream({**actuals}, rollover=n_buckets)
            self.ahead.stream({**ahead}, rollover=n_buckets)
        self.series_id = view.series_id
        self._last_ms = int(view.start_T[-1]) if len(view.start_T) else -1

    def _fit_axes(self, snapshot: Snapshot, view: SeriesView, bucket_ms: int) -> None:
        """Fit the axes to the selected span and the whole fan; mark the watermark."""
        forecast = view.forecast
        steps = len(forecast.units_HQ) if forecast else 1
        origin_ms = forecast.origin_ms if forecast else view.closed_through_ms
        first_ms = int(view.start_T[0]) if len(view.start_T) else view.closed_through_ms
        earliest_ms = view.closed_through_ms - self._past_ms(bucket_ms)
        start_ms = max(earliest_ms, min(first_ms, view.closed_through_ms - _MIN_PAST * bucket_ms))
        end_ms = max(origin_ms, view.closed_through_ms) + steps * bucket_ms
        self.x_range.update(start=start_ms, end=end_ms)
        heights = [
            *self.actuals.data["units"],
            *self.open_bucket.data["units"],
            *self.fan.data["hi1"],
        ]
        top = chart_columns.nice_ceiling(1.06 * max(heights, default=0))
        if self._y_range.end != top:
            self._y_range.end = top
        watermark_ms = snapshot.stats.watermark_ms or view.closed_through_ms
        self._now.update(location=watermark_ms, visible=True)
        self._now_label.update(
            x=watermark_ms, y=top, visible=True, text=f"now {text.utc(watermark_ms, form='%H:%M')}"
        )
