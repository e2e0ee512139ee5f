"""Why this forecast: a waterfall from the usual level of the series to its published median.

The source `explanation` has one row per step of the waterfall, for the whole horizon and for the
next bucket: `span` (the button that shows it), `label`, `hint`, `note` (the change in per cent),
`value` (units), `start` and `end` (places on the axis, 0 to 1) and `tone`: `head` (the period and
the total), `level`, `up`, `down`, `total`, or `none` for the reason why there is no explanation.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dashboards import text
from dashboards.snapshot import SeriesView
from dashboards.source_sync import empty, sync
from model.durations import DAY_MS
from stream.readside.explanations import ADJUSTMENT, Contribution, SeriesExplanation

#: Contributions below this share of the largest bar are one row.
_MINOR: Final = 0.01
_LABELS: Final = {
    "level": ("Usual level", "mean sales of about four weeks"),
    "week": ("Time of week", "hour and weekday, from its own past"),
    "year": ("Season of year", "the same weeks of earlier years"),
    "special_day": ("Special day", "public holidays and the days around them"),
    "recent": ("Recent sales", "the newest bucket, day and week against what was expected"),
    "trend": ("Trend", "the last weeks against the quarter and the year"),
    "clicks": ("Clicks", "views, visitors and carts of the newest bucket against their mean"),
    "price": ("Price", "latest and planned price against the mean price"),
    "promotion": ("Promotion", "planned promotions"),
    "closure": ("Closure", "planned closures"),
    "event": ("Event", "planned events"),
    "stock": ("Stock", "time without stock in the newest bucket"),
    "category": ("Category", "category, brand and location"),
    "history": ("Earlier history", "earlier sales, clicks and prices that the network remembers"),
    "network": ("Model baseline", "what the network adds with all else as usual"),
    ADJUSTMENT: ("Calibration", "calibration, no sales below zero, sums never below their parts"),
}
_OTHER: Final = ("Other", "contributions below one per cent")
_MISSING: Final = {
    "fallback": "The fallback serves; it has no inputs to explain.",
    "unseen-product": "A new product, forecast by its category and price.",
}


class Row(NamedTuple):
    """A row of the source."""

    span: str
    label: str
    hint: str
    note: str
    value: str
    start: float
    end: float
    tone: str


class ExplanationPanel:
    """The waterfall of one session."""

    def __init__(self) -> None:
        self.source = empty("explanation", *Row._fields)

    def update(self, view: SeriesView | None) -> None:
        """Show the newest explanation of the series."""
        rows = explanation_rows(view)
        columns = {name: [row[at] for row in rows] for at, name in enumerate(Row._fields)}
        sync(self.source, columns)


def explanation_rows(view: SeriesView | None) -> list[Row]:
    """Rows of the source; a single one without an explanation.

    >>> [row.label for row in explanation_rows(None)]
    ['']
    """
    if view is None or view.forecast is None:
        return [_reason("")]
    found = view.explanation
    if found is None:
        return [_reason("Waiting for the worker’s answer.")]
    if found.missing:
        return [_reason(_MISSING[found.missing])]
    bucket_ms, steps = found.forecast.bucket_ms, len(found.median_H)
    spans = [_next_bucket(found)]
    if steps > 1:
        spans.append(_horizon(found))
    if bucket_ms < DAY_MS:
        spans.reverse()  # the first one is shown
    return [row for rows in spans for row in rows]


def _reason(label: str) -> Row:
    return Row("", label, "", "", "", 0.0, 0.0, "none")


def _next_bucket(found: SeriesExplanation) -> list[Row]:
    forecast = found.forecast
    start = text.utc(forecast.origin_ms, form="%a %d %b %H:%M")
    return _waterfall(
        f"Next {text.bucket_name(forecast.bucket_ms)}",
        start if forecast.bucket_ms < DAY_MS else start[:-6],
        [(part, float(part.units_H[0]), _factor(part, 1)) for part in found.contributions],
        total=float(found.median_H[0]),
        special=_special_days(found, 1),
    )


def _horizon(found: SeriesExplanation) -> list[Row]:
    forecast, steps = found.forecast, len(found.median_H)
    horizon = text.duration(steps * forecast.bucket_ms).replace(".0", "")
    return _waterfall(
        f"Next {horizon}",
        f"from {text.utc(forecast.origin_ms, form='%a %d %b %H:%M')}",
        [
            (part, float(part.cumulative_H[-1]), _factor(part, steps))
            for part in found.contributions
        ],
        total=float(found.cumulative_H[-1]),
        special=_special_days(found, steps),
    )


def _factor(part: Contribution, steps: int) -> str:
    """The mean factor of the first `steps` buckets as a change in per cent, if there is one.

    Empty for recent sales, of which the factor is a part only.
    """
    if part.factors_H is None or part.name == "recent":
        return ""
    change = text.change(float(part.factors_H[:steps].mean()), 1.0)
    return "" if change in {"+0 %", "−0 %"} else change


def _special_days(found: SeriesExplanation, steps: int) -> str:
    """Names of the special days among the first `steps` buckets."""
    names = dict.fromkeys(name for name in found.special_days[:steps] if name)
    return ", ".join(name[0].upper() + name[1:] for name in names)


def _waterfall(
    span: str,
    period: str,
    parts: Sequence[tuple[Contribution, float, str]],
    *,
    total: float,
    special: str,
) -> list[Row]:
    largest = max(abs(total), *(abs(units) for _, units, _ in parts))
    shown: list[tuple[tuple[str, str], float, str]] = []
    other = 0.0
    for part, units, note in parts:
        label, hint = _LABELS[part.name]
        if part.name == "special_day" and special:
            label, hint = special, _LABELS[part.name][1]
        if part.name != "level" and abs(units) < _MINOR * largest:
            other += units
        else:
            shown.append(((label, hint), units, note))
    if abs(other) >= 0.5 * _MINOR * largest:
        shown.append((_OTHER, other, ""))
    ends = [0.0]
    for _, units, _ in shown:
        ends.append(ends[-1] + units)
    low, high = min(0.0, *ends, total), max(*ends, total)
    digits = 0 if largest >= 100 else 1 if largest >= 10 else 2

    def place(units: float) -> float:
        return round((units - low) / ((high - low) or 1.0), 4)

    rows = [Row(span, period, "", "", f"{text.number(total, digits=digits)} units", 0, 0, "head")]
    for at, ((label, hint), units, note) in enumerate(shown):
        tone = "level" if at == 0 else "up" if units > 0 else "down"
        value = text.number(units, digits=digits) if at == 0 else _signed(units, digits)
        rows.append(Row(span, label, hint, note, value, place(ends[at]), place(ends[at + 1]), tone))
    value = text.number(total, digits=digits)
    rows.append(
        Row(span, "Forecast", "published median", "", value, place(0), place(total), "total")
    )
    return rows


def _signed(value: float, digits: int) -> str:
    return f"{'−' if value < 0 else '+'}{text.number(abs(value), digits=digits)}"
