"""The tiles: sales of the selected series, and throughput, latency and accuracy of the pipeline.

The source `kpis` has one row per tile: `key` (the tile), `value`, `note`, and `tone` (`up`, `down`
or empty), the colour of the note.
"""

from collections.abc import Mapping, Sequence

from bokeh.models import ColumnDataSource

from dashboards import summary, text
from dashboards.snapshot import SeriesView, Snapshot
from dashboards.source_sync import empty, sync
from model.quantiles.bands import main_band
from stream.features.definitions import REVENUE, UNITS, VIEWS
from stream.readside.worker_stats import DeploymentStats

Row = tuple[str, str, str, str]

_FALLBACK = ("smoothing", "naive", "baseline")
_PRETRAINED = "pretrained"


class Kpis:
    """The tiles of one session."""

    def __init__(self) -> None:
        self.source: ColumnDataSource = empty("kpis", "key", "value", "note", "tone")

    def update(self, snapshot: Snapshot, view: SeriesView | None) -> None:
        """Show the newest values."""
        rows = [*_sales_rows(snapshot, view), *_pipeline_rows(snapshot, view)]
        sync(self.source, as_columns(rows))


def as_columns(rows: Sequence[Row]) -> Mapping[str, Sequence[str]]:
    """Return rows as columns of the source.

    >>> as_columns([("a", "1", "x", "")])["value"]
    ['1']
    """
    names = ("key", "value", "note", "tone")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def is_fallback(model_id: str) -> bool:
    """True if the model is the fallback, which serves while no champion does.

    >>> is_fallback("exponential-smoothing"), is_fallback("lstm-20260101")
    (True, False)
    """
    return any(word in model_id.lower() for word in _FALLBACK)


def compared(now: float, mean_day: float | None) -> tuple[str, str]:
    """Return note and tone of a value compared with the mean day before.

    >>> compared(150, 100), compared(50, 100), compared(5, None)
    (('+50 % vs mean day', 'up'), ('−50 % vs mean day', 'down'), ('last 24 h', ''))
    """
    change = text.change(now, mean_day) if mean_day else ""
    if not change:
        return "last 24 h", ""
    return f"{change} vs mean day", "up" if now > (mean_day or 0) else "down"


def _sales_rows(snapshot: Snapshot, view: SeriesView | None) -> list[Row]:
    if view is None or snapshot.info is None:
        keys = ("orders", "units", "revenue", "views", "conversion")
        return [(key, text.MISSING, "", "") for key in keys]
    day = summary.last_day(view)
    bucket_ms = snapshot.info.bucket_ms
    newest_ms = snapshot.stats.newest_event_ms
    per_minute = summary.orders_per_minute(view, bucket_ms=bucket_ms, now_ms=newest_ms)
    digits = 0 if per_minute is None or per_minute >= 10 else 2
    synthetic = " · synthetic" if snapshot.info.is_synthetic("clicks") else ""
    in_open = f"in open {text.bucket_name(bucket_ms).replace('minutes', 'min')}"
    note, tone = _compared_or_open(view, VIEWS, day.views, day.mean_views, in_open)
    if synthetic:
        note = note.removesuffix(" vs mean day")
    return [
        ("orders", text.figure(per_minute, digits=digits), "last hour", ""),
        (
            "units",
            text.figure(day.units),
            *_compared_or_open(view, UNITS, day.units, day.mean_units, in_open),
        ),
        (
            "revenue",
            text.figure(day.revenue),
            *_compared_or_open(view, REVENUE, day.revenue, day.mean_revenue, in_open),
        ),
        ("views", text.figure(day.views), f"{note}{synthetic}", tone),
        (
            "conversion",
            text.percent(day.conversion, digits=2),
            "synthetic clicks" if synthetic else "purchases per view",
            "",
        ),
    ]


def _compared_or_open(
    view: SeriesView, column: int, now: float, mean_day: float | None, in_open: str
) -> tuple[str, str]:
    """Return note and tone: the comparison, or the open sum if there is none."""
    note, tone = compared(now, mean_day)
    if tone or not view.open_buckets:
        return note, tone
    return f"{text.signed(summary.open_sum(view, column))} {in_open}", ""


def _pipeline_rows(snapshot: Snapshot, view: SeriesView | None) -> list[Row]:
    stats, forecast = snapshot.stats, view.forecast if view else None
    p50, p99 = stats.latency_p50_ms, stats.latency_p99_ms
    speed = f" · {text.number(snapshot.speed)}×" if (snapshot.speed or 0) > 1.5 else ""
    model = ", ".join(stats.model_ids) or (forecast.model_id if forecast else "")
    note, tone = _model_note(stats, model)
    watermark_ms = stats.watermark_ms
    if watermark_ms is None and forecast is not None:
        watermark_ms = forecast.watermark_ms
    clock = text.utc(watermark_ms, form="%H:%M")
    date = text.utc(watermark_ms, form="%d %b %Y") if watermark_ms is not None else ""
    return [
        ("events", text.compact(stats.events_per_s if stats.workers else None), "all topics", ""),
        (
            "latency",
            text.duration(p50),
            f"p99 {text.duration(p99)}" if p99 is not None else "event → forecast",
            "",
        ),
        ("watermark", clock, f"{date}{speed}" if date else "event time", ""),
        ("model", model or text.MISSING, note if model else "no forecast yet", tone),
        _coverage(snapshot, view),
        _wql(snapshot),
    ]


def _coverage(snapshot: Snapshot, view: SeriesView | None) -> Row:
    """Share of demand inside the main band over the last days."""
    score = None if snapshot.accuracy is None else snapshot.accuracy.overall()
    if snapshot.info is None or score is None or score.coverage is None:
        return ("coverage", text.MISSING, "no scores yet", "")
    quantiles = snapshot.info.quantiles
    low, high = main_band(quantiles)
    nominal = text.percent(quantiles[high] - quantiles[low], digits=0)
    calibrated = view is not None and view.forecast is not None and view.forecast.calibrated
    state = "calibrated" if calibrated else "not calibrated"
    return ("coverage", text.percent(score.coverage), f"nominal {nominal} · {state}", "")


def _wql(snapshot: Snapshot) -> Row:
    """WQL of the published forecasts, compared with the seasonal naive."""
    score = None if snapshot.accuracy is None else snapshot.accuracy.overall()
    if score is None or score.wql is None:
        return ("wql", text.MISSING, "no scores yet", "")
    if score.naive_wql is None or score.wql_beside_naive is None:
        return ("wql", text.number(score.wql, digits=3), "no naive score yet", "")
    better = score.wql_beside_naive < score.naive_wql
    note = f"naive {text.number(score.naive_wql, digits=3)}"
    value = text.number(score.wql_beside_naive, digits=3)
    return ("wql", value, note, "up" if better else "down")


def _model_note(stats: DeploymentStats, model: str) -> tuple[str, str]:
    """Return note and tone of the model: the champion's problem, a warm-up, or its role."""
    if stats.model_problems:
        return stats.model_problems[0], "down"
    for model_id, share in stats.preparing.items():
        return f"{model_id} warming up, {text.percent(share, digits=0)}", ""
    if model.startswith(_PRETRAINED):
        return "pretrained, no champion yet", ""
    return ("fallback, no champion yet" if is_fallback(model) else "champion"), ""
