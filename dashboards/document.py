"""The Bokeh document of one session: panels, selected series, and a periodic update.

Tests read the sources in the browser:

    Bokeh.documents[0].get_model_by_name("actuals").data      closed buckets: start, x, units, …
    Bokeh.documents[0].get_model_by_name("fan").data          start, x, median, lo1…lo4, hi1…hi4
    Bokeh.documents[0].get_model_by_name("open_bucket").data  start, x, units
    Bokeh.documents[0].get_model_by_name("ahead").data        start, x, lo, median, hi
    Bokeh.documents[0].get_model_by_name("kpis").data         key, value, note, tone
    Bokeh.documents[0].get_model_by_name("status").data       key, value, note, tone
    Bokeh.documents[0].get_model_by_name("explanation").data  span, label, note, value, …

They select a series by `get_model_by_name("series_search").value = "category:Garden"`, or with
`?series=…` in the address.
"""

from pathlib import Path
from typing import Any, Final

from bokeh.document import Document
from bokeh.models import InlineStyleSheet
from bokeh.models.widgets import AutocompleteInput, RadioButtonGroup

from dashboards.feed import REFRESH_S, Feed
from dashboards.panels.explanation import ExplanationPanel
from dashboards.panels.forecast import ForecastChart
from dashboards.panels.kpis import Kpis
from dashboards.panels.movers import MoversList
from dashboards.panels.status import Status
from dashboards.panels.traffic import TrafficChart
from dashboards.snapshot import Snapshot
from model.durations import DAY_MS
from stream.clock import wall_clock_ms
from stream.series_ids import TOTAL

DEFAULT_SERIES: Final = TOTAL
_SPANS: Final = (("24 h", DAY_MS), ("3 days", 3 * DAY_MS), ("7 days", None))
_WIDGETS_CSS: Final = Path(__file__).parent / "live" / "static" / "widgets.css"


class Page:
    """The page of one session; `attach` adds it to the session's document."""

    def __init__(self, feed: Feed, series_id: str) -> None:
        self._feed = feed
        self._subscription = feed.subscribe(series_id)
        self._snapshot: Snapshot | None = None
        self._names: tuple[str, ...] | None = None
        self._search_error = ""
        sheet = InlineStyleSheet(css=_WIDGETS_CSS.read_text(encoding="utf-8"))
        self.search = AutocompleteInput(
            name="series_search",
            value="",
            placeholder="Search a SKU or category",
            case_sensitive=False,
            restrict=False,
            min_characters=1,
            max_completions=10,
            search_strategy="includes",
            sizing_mode="stretch_width",
            stylesheets=[sheet],
        )
        self.spans = RadioButtonGroup(
            name="span", labels=[label for label, _ in _SPANS], active=2, stylesheets=[sheet]
        )
        self.kpis = Kpis()
        self.chart = ForecastChart()
        self.traffic = TrafficChart(self.chart.actuals, self.chart.x_range)
        self.movers = MoversList()
        self.explanation = ExplanationPanel()
        self.status = Status()
        # attaches the sources without a glyph to the document, through the chart
        self.chart.figure.tags = [
            self.kpis.source, self.movers.source, self.movers.picks, self.explanation.source,
            self.status.source,
        ]  # fmt: skip
        self.search.on_change("value", lambda _attr, _old, new: self.select(new))
        self.spans.on_change("active", lambda _attr, _old, new: self.zoom(new))

    def attach(self, document: Document) -> None:
        """Add the roots and the periodic update; unsubscribe when the session ends."""
        document.on_session_destroyed(self._on_destroyed)
        for root in (self.search, self.spans, self.chart.figure, self.traffic.figure):
            document.add_root(root)
        document.title = "Surgecast"
        document.config.notify_connection_status = False  # page.js reports it
        document.add_periodic_callback(self.update, int(1_000 * REFRESH_S))
        self.update()

    def select(self, query: str) -> None:
        """Show the series that matches the query; an empty query changes nothing."""
        query = query.strip()
        series_id = self._feed.resolve(query) if query else None
        self._search_error = f"No series “{query}”" if query and series_id is None else ""
        if series_id is not None:
            self._subscription.watch(series_id)
            self._snapshot = None

    def zoom(self, active: int | None) -> None:
        """Show a shorter or longer history."""
        self.chart.zoom(_SPANS[2 if active is None else active][1])
        self._snapshot = None

    def update(self) -> None:
        """Show the latest snapshot if it has changed."""
        snapshot = self._feed.latest
        series_id = self._subscription.series_id
        if series_id not in snapshot.views and self.chart.series_id in snapshot.views:
            series_id = self.chart.series_id or series_id  # until the selected one has been read
        view = snapshot.views.get(series_id)
        if snapshot is not self._snapshot:
            self.chart.update(snapshot, view)
            self.traffic.update(snapshot)
            self.kpis.update(snapshot, view)
            self.movers.update(snapshot)
            self.explanation.update(view)
            if snapshot.names is not self._names:
                self._names = snapshot.names
                self.search.completions = list(snapshot.names)
            self._snapshot = snapshot
        self.status.update(
            snapshot, series_id, view, now_ms=wall_clock_ms(), search_error=self._search_error
        )

    def close(self) -> None:
        """Unsubscribe from the feed."""
        self._subscription.close()

    def _on_destroyed(self, session_context: Any) -> None:  # Bokeh requires this name
        self.close()


def build(document: Document, feed: Feed) -> Page:
    """Fill a session's document; `?series=` in its address selects the series."""
    context = document.session_context
    request = getattr(context, "request", None)
    series_id = request.arguments.get("series", [b""])[0] if request else b""
    page = Page(feed, series_id.decode(errors="replace").strip() or DEFAULT_SERIES)
    page.attach(document)
    return page
