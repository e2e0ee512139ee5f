"""The strip of figures: the chosen series' trade, and the pipeline's own speed.

The source `kpis` has one row a tile: `key` (which tile), `value`, `note` below it, and `tone`
(`up`, `down` or empty) that colours the note.
"""

from collections.abc import Mapping, Sequence

from bokeh.models import ColumnDataSource

from dashboards import summary, text
from dashboards.snapshot import SeriesView, Snapshot
from dashboards.source_sync import empty, sync
from stream.features.definitions import REVENUE, UNITS, VIEWS
from stream.readside.worker_stats import DeploymentStats

Row = tuple[str, str, str, str]

_FALLBACK = ("smoothing", "naive", "baseline")


class Kpis:
    """The tiles of one session."""

    def __init__(self) -> None:
        self.source: ColumnDataSource = empty("kpis", "key", "value", "note", "tone")

    def update(self, snapshot: Snapshot, view: SeriesView | None) -> None:
        """Show the newest figures."""
        rows = [*_trade(snapshot, view), *_pipeline(snapshot, view)]
        sync(self.source, as_columns(rows))


def as_columns(rows: Sequence[Row]) -> Mapping[str, Sequence[str]]:
    """Rows as the source's columns.

    >>> as_columns([("a", "1", "x", "")])["value"]
    ['1']
    """
    names = ("key", "value", "note", "tone")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def is_fallback(model_id: str) -> bool:
    """Whether this is what serves where no network does.

    >>> is_fallback("exponential-smoothing"), is_fallback("lstm-20260101")
    (True, False)
    """
    return any(word in model_id.lower() for word in _FALLBACK)


def compared(now: float, mean_day: float | None) -> tuple[str, str]:
    """Note and tone of a figure against the mean day before.

    >>> compared(150, 100), compared(50, 100), compared(5, None)
    (('+50 % vs mean day', 'up'), ('−50 % vs mean day', 'down'), ('last 24 h', ''))
    """
    said = text.change(now, mean_day) if mean_day else ""
    if not said:
        return "last 24 h", ""
    return f"{said} vs mean day", "up" if now > (mean_day or 0) else "down"


def _trade(snapshot: Snapshot, view: SeriesView | None) -> list[Row]:
    if view is None or snapshot.info is None:
        keys = ("orders", "units", "revenue", "views", "conversion")
        return [(key, text.MISSING, "", "") for key in keys]
    day = summary.last_day(view)
    bucket_ms = snapshot.info.bucket_ms
    newest_ms = snapshot.stats.newest_event_ms
    per_minute = summary.orders_per_minute(view, bucket_ms=bucket_ms, now_ms=newest_ms)
    digits = 0 if per_minute is None or per_minute >= 10 else 2
    made_up = " · synthetic" if snapshot.info.is_synthetic("clicks") else ""
    in_open = f"in open {text.bucket_name(bucket_ms).replace('minutes', 'min')}"
    shown, tone = _moving(view, VIEWS, day.views, day.mean_views, in_open)
    if made_up:
        shown = shown.removesuffix(" vs mean day")
    return [
        ("orders", text.figure(per_minute, digits=digits), "last hour", ""),
        (
            "units",
            text.figure(day.units),
            *_moving(view, UNITS, day.units, day.mean_units, in_open),
        ),
        (
            "revenue",
            text.figure(day.revenue),
            *_moving(view, REVENUE, day.revenue, day.mean_revenue, in_open),
        ),
        ("views", text.figure(day.views), f"{shown}{made_up}", tone),
        (
            "conversion",
            text.percent(day.conversion, digits=2),
            "synthetic clicks" if made_up else "purchases / view",
            "",
        ),
    ]


def _moving(
    view: SeriesView, column: int, now: float, mean_day: float | None, in_open: str
) -> tuple[str, str]:
    note, tone = compared(now, mean_day)
    if tone or not view.opened:
        return note, tone
    return f"{text.signed(summary.opened(view, column))} {in_open}", ""


def _pipeline(snapshot: Snapshot, view: SeriesView | None) -> list[Row]:
    stats, forecast = snapshot.stats, view.forecast if view else None
    p50, p99 = stats.latency_p50_ms, stats.latency_p99_ms
    speed = f" · {text.number(snapshot.speed)}×" if (snapshot.speed or 0) > 1.5 else ""
    model = ", ".join(stats.model_ids) or (forecast.model_id if forecast else "")
    kind, tone = _served_by(stats, model)
    watermark_ms = stats.watermark_ms
    if watermark_ms is None and forecast is not None:
        watermark_ms = forecast.watermark_ms
    moment = text.utc(watermark_ms, form="%H:%M")
    date = text.utc(watermark_ms, form="%d %b %Y") if watermark_ms is not None else ""
    return [
        ("events", text.compact(stats.events_per_s if stats.workers else None), "all inputs", ""),
        (
            "latency",
            text.duration(p50),
            f"p99 {text.duration(p99)}" if p99 is not None else "event → forecast",
            "",
        ),
        ("watermark", moment, f"{date}{speed}" if date else "event time", ""),
        ("model", model or text.MISSING, kind if model else "no forecast yet", tone),
        _coverage(snapshot, view),
        _wql(snapshot),
    ]


def _coverage(snapshot: Snapshot, view: SeriesView | None) -> Row:
    """How much of the demand came within the outermost band over the last days."""
    score = None if snapshot.accuracy is None else snapshot.accuracy.overall()
    if snapshot.info is None or score is None or score.coverage is None:
        return ("coverage", text.MISSING, "none due yet", "")
    quantiles = snapshot.info.quantiles
    nominal = text.percent(quantiles[-1] - quantiles[0], digits=0)
    calibrated = view is not None and view.forecast is not None and view.forecast.calibrated
    state = "calibrated" if calibrated else "not calibrated"
    return ("coverage", text.percent(score.coverage), f"of {nominal} · {state}", "")


def _wql(snapshot: Snapshot) -> Row:
    """How good the forecasts that were sent turned out to be, against the seasonal naive."""
    score = None if snapshot.accuracy is None else snapshot.accuracy.overall()
    if score is None or score.wql is None:
        return ("wql", text.MISSING, "none due yet", "")
    if score.naive_wql is None or score.wql_beside_naive is None:
        return ("wql", text.number(score.wql, digits=3), "no naive yet", "")
    better = score.wql_beside_naive < score.naive_wql
    note = f"naive {text.number(score.naive_wql, digits=3)}"
    value = text.number(score.wql_beside_naive, digits=3)
    return ("wql", value, note, "up" if better else "down")


def _served_by(stats: DeploymentStats, model: str) -> tuple[str, str]:
    """Note and tone of the model: what is wrong with the champion, what comes, what it is."""
    if stats.model_problems:
        return stats.model_problems[0], "down"
    for model_id, share in stats.preparing.items():
        return f"{model_id} gets ready, {text.percent(share, digits=0)}", ""
    return ("until a network is trained" if is_fallback(model) else "carried state"), ""
