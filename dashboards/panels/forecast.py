"""The main chart: units sold per bucket, the open bucket, and the forecast fan ahead.

Sources: `actuals` (closed buckets), `ahead` (what was forecast one step ahead of each of them),
`open_bucket`, `fan` (nested bands and median of the newest forecast). Closed buckets are streamed,
the rest is patched; whole columns go out only when another series is chosen.
"""

from typing import Final

from bokeh.models import (
    DatetimeTickFormatter,
    HoverTool,
    Label,
    NumeralTickFormatter,
    Range1d,
    Span,
)
from bokeh.plotting import figure

from dashboards import columns, palette, text
from dashboards.snapshot import SeriesView, Snapshot, drawn_ms
from dashboards.sources import empty, sync

BAR: Final = 0.68
_BAND_ALPHAS: Final = (0.22, 0.24, 0.28, 0.34)
_BEFORE_MS: Final = 8 * 86_400_000  # any span, until the first bucket is known

def day_ticks() -> DatetimeTickFormatter:
    """Labels of a time axis; each axis needs its own."""
    return DatetimeTickFormatter(
        minutes="%H:%M", hourmin="%H:%M", hours="%H:%M", days="%a %d %b", months="%d %b", years="%Y"
    )


def tip(title: str, *rows: tuple[str, str]) -> str:
    """Markup of a tooltip: a heading and pairs of label and value."""
    cells = "".join(
        f"<div style='color:#9aa8bd'>{label}</div>"
        f"<div style='text-align:right;font-weight:600'>{value}</div>"
        for label, value in rows
    )
    return (
        "<div style='font:12px/1.55 Inter,system-ui,sans-serif;color:#e8eef7;padding:2px 4px'>"
        f"<div style='font-weight:600;margin-bottom:2px'>{title}</div>"
        f"<div style='display:grid;grid-template-columns:auto auto;gap:0 14px'>{cells}</div></div>"
    )


WHEN: Final = "@start{%a %d %b %H:%M} UTC"
FORMATS: Final = {"@start": "datetime"}


class ForecastChart:
    """The main chart of one session."""

    def __init__(self) -> None:
        self.actuals = empty("actuals", *columns.ACTUALS)
        self.ahead = empty("ahead", *columns.AHEAD)
        self.open_bucket = empty("open_bucket", *columns.OPEN)
        self.fan = empty("fan", *columns.FAN)
        self._span_ms: int | None = None
        self.drawn: str | None = None
        self._last_ms = -1
        self.x_range = Range1d(0, _BEFORE_MS, name="event_time")
        self.figure = figure(
            name="forecast_chart",
            x_range=self.x_range,
            y_range=Range1d(0, 4),
            x_axis_type="datetime",
            toolbar_location=None,
            tools="",
            sizing_mode="stretch_both",
            min_height=180,
            output_backend="canvas",
        )
        self._draw()

    def _draw(self) -> None:
        fig = self.figure
        fig.xaxis.formatter = day_ticks()
        fig.yaxis.formatter = NumeralTickFormatter(format="0,0")
        fig.yaxis.ticker.min_interval = 1
        self._band = fig.vbar(
            "x", source=self.ahead, width=1, bottom="lo", top="hi",
            fill_color=palette.AHEAD, fill_alpha=0.3, line_color=None, level="underlay",
        )  # fmt: skip
        self._sold = sold = fig.vbar(
            "x", source=self.actuals, width=1, top="units",
            fill_color=palette.ACTUAL, fill_alpha=0.92, line_color=None,
            hover_fill_color=palette.OPEN, hover_line_color=None,
        )  # fmt: skip
        for n, alpha in enumerate(_BAND_ALPHAS, start=1):
            fig.varea(
                "x", f"lo{n}", f"hi{n}", source=self.fan,
                fill_color=palette.EXPECTED, fill_alpha=alpha,
            )  # fmt: skip
        fig.line("x", "median", source=self.fan, line_color=palette.MEDIAN, line_width=2)
        self._filling = filling = fig.vbar(
            "x", source=self.open_bucket, width=1, top="units",
            fill_color=palette.OPEN, fill_alpha=0.35, line_color=palette.OPEN, line_width=1,
            hatch_pattern="right_diagonal_line", hatch_color=palette.OPEN, hatch_scale=6,
            hatch_alpha=0.9, hatch_weight=1,
        )  # fmt: skip
        self._coming = coming = fig.vbar(
            "x", source=self.fan, width=1, top="hit", fill_alpha=0, line_alpha=0,
            hover_fill_color=palette.MEDIAN, hover_fill_alpha=0.18, hover_line_alpha=0,
        )  # fmt: skip
        units, orders = ("Units", "@units{0,0}"), ("Order lines", "@orders{0,0}")
        one_ahead = ("Expected one step ahead", "@expected")
        median = ("Median", "@median{0,0.0}")
        for renderer, markup in (
            (sold, tip(WHEN, units, orders, ("Revenue", "@revenue{0,0.00}"), one_ahead)),
            (filling, tip(f"{WHEN} · open", ("Units so far", "@units{0,0}"), orders,
                          ("Expected in full", "@expected"))),
            (coming, tip(f"{WHEN} · forecast", median, ("@band", "@lo1{0,0.0} – @hi1{0,0.0}"),
                         ("Sum up to here, median", "@sum{0,0.0}"))),
        ):  # fmt: skip
            fig.add_tools(
                HoverTool(
                    renderers=[renderer], tooltips=markup, formatters=FORMATS, mode="vline",
                    point_policy="follow_mouse", show_arrow=False, attachment="horizontal",
                )
            )  # fmt: skip
        self._now = Span(
            location=0, dimension="height", line_color=palette.NOW, line_dash=[3, 3],
            line_alpha=0.75, visible=False,
        )  # fmt: skip
        self._now_label = Label(
            x=0, y=0, text="", text_color=palette.NOW, text_font_size="11px", text_align="right",
            text_baseline="top", x_offset=-6, y_offset=-2, visible=False,
        )  # fmt: skip
        fig.add_layout(self._now)
        fig.add_layout(self._now_label)

    def update(self, snapshot: Snapshot, view: SeriesView | None) -> None:
        """Show the newest buckets and forecast."""
        info = snapshot.info
        if view is None or info is None:
            return
        bucket_ms = info.bucket_ms
        for renderer, share in ((self._sold, BAR), (self._filling, BAR), (self._band, 1.0)):
            renderer.glyph.width = share * bucket_ms
        self._coming.glyph.width = bucket_ms
        for renderer in (self._sold, self._coming):
            renderer.hover_glyph.width = renderer.glyph.width
        self._stream_closed(view, bucket_ms)
        sync(self.open_bucket, columns.open_columns(view, bucket_ms=bucket_ms))
        sync(self.fan, columns.fan_columns(view))
        self._follow(snapshot, view, bucket_ms)

    def zoom(self, span_ms: int | None) -> None:
        """Hold that much of the past, or all of it."""
        self._span_ms = span_ms
        self.drawn = None

    def _past_ms(self, bucket_ms: int) -> int:
        return max(bucket_ms, min(self._span_ms or drawn_ms(bucket_ms), drawn_ms(bucket_ms)))

    def _stream_closed(self, view: SeriesView, bucket_ms: int) -> None:
        past_ms = self._past_ms(bucket_ms)
        n_drawn = past_ms // bucket_ms
        oldest_ms = view.closed_through_ms - past_ms
        again = view.series_id != self.drawn or view.closed_through_ms <= self._last_ms
        after_ms = oldest_ms - 1 if again else max(self._last_ms, oldest_ms - 1)
        actuals, ahead = columns.closed_columns(view, bucket_ms=bucket_ms, after_ms=after_ms)
        if again:
            self.actuals.data, self.ahead.data = actuals, ahead
        elif actuals["start"]:
            self.actuals.stream(actuals, rollover=n_drawn)
            self.ahead.stream(ahead, rollover=n_drawn)
        self.drawn = view.series_id
        self._last_ms = int(view.start_T[-1]) if len(view.start_T) else -1

    def _follow(self, snapshot: Snapshot, view: SeriesView, bucket_ms: int) -> None:
        """Keep the axes over the chosen span and the whole fan; mark the watermark."""
        forecast = view.forecast
        steps = len(forecast.units_HQ) if forecast else 1
        origin_ms = forecast.origin_ms if forecast else view.closed_through_ms
        start_ms = view.closed_through_ms - self._past_ms(bucket_ms)
        end_ms = max(origin_ms, view.closed_through_ms) + steps * bucket_ms
        self.x_range.update(start=start_ms, end=end_ms)
        heights = [
            *self.actuals.data["units"],
            *self.open_bucket.data["units"],
            *self.fan.data["hi1"],
        ]
        top = columns.nice_ceiling(1.06 * max(heights, default=0))
        if self.figure.y_range.end != top:
            self.figure.y_range.end = top
        watermark_ms = snapshot.stats.watermark_ms or view.closed_through_ms
        self._now.update(location=watermark_ms, visible=True)
        self._now_label.update(
            x=watermark_ms, y=top, visible=True, text=f"now {text.utc(watermark_ms, form='%H:%M')}"
        )
