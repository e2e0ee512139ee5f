"""Building blocks of both charts: figure, time axis, bars, tooltip."""

from typing import Final, Literal

from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    DatetimeTickFormatter,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
    VBar,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

#: Share of a bucket's width that its bar fills; the forecast band shows between the bars.
BAR_SHARE: Final = 0.68

_BOX_STYLE: Final = "font:12px/1.55 Inter,system-ui,sans-serif;color:#e8eef7;padding:2px 4px"
_TITLE_STYLE: Final = "font-weight:600;margin-bottom:2px"
_GRID_STYLE: Final = "display:grid;grid-template-columns:auto auto;gap:0 14px"
_TIME: Final = "@start{%a %d %b %H:%M} UTC"


def time_chart(name: str, x_range: Range1d, y_range: Range1d, *, ticks: int) -> figure:
    """Create an empty chart over event time that fills its container."""
    fig = figure(
        name=name,
        x_range=x_range,
        y_range=y_range,
        x_axis_type="datetime",
        toolbar_location=None,
        tools="",
        sizing_mode="stretch_both",
        min_height=80,
    )
    fig.xaxis.formatter = DatetimeTickFormatter(
        minutes="%H:%M", hourmin="%H:%M", hours="%H:%M", days="%a %d %b", months="%d %b", years="%Y"
    )
    fig.yaxis.formatter = NumeralTickFormatter(format="0,0")
    fig.yaxis.ticker = fig.ygrid.ticker = BasicTicker(min_interval=1, desired_num_ticks=ticks)
    return fig


class Bars:
    """Bars of one source, with a common width."""

    def __init__(
        self, fig: figure, source: ColumnDataSource, glyph: VBar, hover: VBar | None = None
    ) -> None:
        self._glyphs = [glyph] if hover is None else [glyph, hover]
        self.renderer: GlyphRenderer[VBar] = fig.add_glyph(source, glyph, hover_glyph=hover)

    def set_width(self, width_ms: float) -> None:
        """Set the width of every bar."""
        for glyph in self._glyphs:
            glyph.width = width_ms


def add_tooltip(
    fig: figure, bars: Bars, *rows: tuple[str, str], kind: Literal["", "open", "forecast"] = ""
) -> None:
    """Add a tooltip over a bucket's whole height: its start, then pairs of label and value."""
    cells = "".join(
        f"<div style='color:#9aa8bd'>{label}</div>"
        f"<div style='text-align:right;font-weight:600'>{value}</div>"
        for label, value in rows
    )
    title = f"{_TIME} · {kind}" if kind else _TIME
    markup = f"<div style='{_TITLE_STYLE}'>{title}</div><div style='{_GRID_STYLE}'>{cells}</div>"
    fig.add_tools(
        HoverTool(
            renderers=[bars.renderer],
            tooltips=f"<div style='{_BOX_STYLE}'>{markup}</div>",
            formatters={"@start": "datetime"},
            mode="vline",
            point_policy="follow_mouse",
            show_arrow=False,
            attachment="horizontal",
        )
    )
