"""Texts of the page: heading of the series, state of the pipeline, notices.

The source `status` has rows like `kpis`: `key`, `value`, `note`, `tone`. Keys: `series` (id of the
selected series), `title`, `ahead` (demand over the horizon), `bands`, `live`, `notice` (shown over
an empty chart), `counts`, `clicks` (label of synthetic clicks), `search` (the search error) and
`pulse`, which changes every second so that the page can detect a lost connection.
"""

from dashboards import text
from dashboards.chart_columns import band_name, band_pairs, main_band_name, median_column
from dashboards.panels.kpis import Row, as_columns
from dashboards.snapshot import SeriesView, Snapshot
from dashboards.source_sync import empty, sync
from model.quantiles.bands import main_band
from stream.readside.series_answers import STALE_AFTER_MS
from stream.series_ids import TOTAL


class Status:
    """The texts of one session."""

    def __init__(self) -> None:
        self.source = empty("status", "key", "value", "note", "tone")

    def update(
        self,
        snapshot: Snapshot,
        series_id: str,
        view: SeriesView | None,
        *,
        now_ms: int,
        search_error: str = "",
    ) -> None:
        """Show the newest state."""
        rows = [
            ("series", series_id, "", ""),
            _title(snapshot, series_id, view),
            _ahead(view),
            live(snapshot, now_ms=now_ms),
            ("notice", *notice(snapshot, series_id, view), ""),
            _counts(snapshot),
            _clicks(snapshot),
            _bands(snapshot),
            ("search", search_error, "", ""),
            ("pulse", str(now_ms // 1_000), "", ""),
        ]
        sync(self.source, as_columns(rows))


def _title(snapshot: Snapshot, series_id: str, view: SeriesView | None) -> Row:
    kind = "category" if series_id.startswith("category:") else ""
    if view is not None and view.category:
        kind = view.category
    if series_id == TOTAL and snapshot.n_series:
        kind = f"{snapshot.n_series:,} series"
    return ("title", text.series_title(series_id), kind, "")


def _ahead(view: SeriesView | None) -> Row:
    forecast = view.forecast if view else None
    if forecast is None:
        return ("ahead", "", "", "")
    last_Q = forecast.cumulative_HQ[-1]
    horizon = text.duration(len(forecast.units_HQ) * forecast.bucket_ms).replace(".0", "")
    low, high = (text.number(last_Q[column]) for column in main_band(forecast.quantiles))
    band = f"{main_band_name(forecast.quantiles)}: {low} – {high}"
    return (
        "ahead",
        f"{text.number(last_Q[median_column(forecast.quantiles)])} units",
        f"next {horizon} · {band}",
        "",
    )


def _bands(snapshot: Snapshot) -> Row:
    if snapshot.info is None:
        return ("bands", "Forecast bands", "", "")
    quantiles = snapshot.info.quantiles
    pairs = dict.fromkeys(band_pairs(quantiles))
    names = ", ".join(band_name(quantiles[low], quantiles[high]) for low, high in pairs)
    return ("bands", f"Forecast bands {names.replace(' %,', ',')}", "", "")


def live(snapshot: Snapshot, *, now_ms: int) -> Row:
    """Return the row of the connection and worker state.

    >>> live(Snapshot(at_ms=5, problem="the store does not answer"), now_ms=5)
    ('live', 'No connection', 'the store does not answer', 'bad')
    """
    if snapshot.problem:
        return ("live", "No connection", snapshot.problem, "bad")
    stats = snapshot.stats
    if snapshot.info is None:
        return ("live", "Waiting", "no worker has started yet", "warn")
    if stats.at_ms is None:
        return ("live", "Worker stopped", "no worker is reporting; data is frozen", "bad")
    age_ms = max(0, now_ms - stats.at_ms)
    if age_ms > STALE_AFTER_MS:
        return ("live", "Stale", f"last report {text.duration(age_ms)} ago", "warn")
    if snapshot.fault is not None:
        return ("live", "Stale", snapshot.fault.detail, "bad")
    n_workers = len(stats.workers)
    workers = "1 worker" if n_workers == 1 else f"{n_workers} workers"
    updated = "just now" if age_ms < 1_500 else f"{text.duration(age_ms)} ago"
    return ("live", "Live", f"{workers} · updated {updated}", "good")


def notice(snapshot: Snapshot, series_id: str, view: SeriesView | None) -> tuple[str, str]:
    """Return heading and explanation for an empty chart; empty if there is data.

    >>> notice(Snapshot(problem="x"), "total", None)[0]
    'The store does not answer'
    """
    if view is not None and (len(view.start_T) or view.forecast is not None):
        return ("", "")
    if snapshot.problem:
        return ("The store does not answer", f"{snapshot.problem}. Retrying automatically.")
    if snapshot.info is None:
        return ("Waiting for the first worker", "Start one with: surgecast worker")
    if view is None:
        if not snapshot.n_series:
            return ("Waiting for the first events", "No orders or clicks have arrived yet.")
        return (f"Waiting for {series_id}", "It appears with its first event.")
    width = text.bucket_name(snapshot.info.bucket_ms)
    return (
        f"Collecting the first {width}",
        "History and forecast appear when this bucket closes.",
    )


def _counts(snapshot: Snapshot) -> Row:
    stats = snapshot.stats
    if not stats.workers:
        return ("counts", "", "", "")
    parts = [
        f"{stats.total('counted'):,} events counted",
        f"{stats.total('duplicate'):,} duplicates",
        f"{stats.total('late'):,} late",
        f"{stats.total('rejected'):,} rejected",
        f"{stats.buckets_closed:,} buckets closed",
        f"{stats.forecasts:,} forecasts",
    ]
    if stats.lag is not None:
        parts.append(f"{stats.lag:,} unread")
    return ("counts", " · ".join(parts), "", "")


def _clicks(snapshot: Snapshot) -> Row:
    synthetic = snapshot.info is not None and snapshot.info.is_synthetic("clicks")
    label = snapshot.info.labels["clicks"] if snapshot.info is not None and synthetic else ""
    return ("clicks", "synthetic clicks" if synthetic else "", label, "")
