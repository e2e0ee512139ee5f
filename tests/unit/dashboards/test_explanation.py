"""The waterfall starts at the usual level, ends at the published median, and loses nothing."""

from typing import Any

import numpy as np
import pytest

from dashboards.panels.explanation import Row, explanation_rows
from dashboards.snapshot import SeriesView
from model.durations import DAY_MS, HOUR_MS
from stream.readside.explanations import matched
from stream.readside.series_answers import Age, SeriesForecast
from stream.state.explanations import StoredExplanation

ORIGIN_MS = 1_735_084_800_000  # 2024-12-25T00:00Z


def view_of(
    parts: dict[str, list[float]],
    *,
    bucket_ms: int = HOUR_MS,
    factors: dict[str, list[float]] | None = None,
    special_days: list[str] | None = None,
    **stored: Any,
) -> SeriesView:
    """A series with a forecast of as many buckets as the parts have, and its explanation."""
    units_H = np.sum(list(parts.values()), axis=0).clip(min=0)
    forecast = SeriesForecast(
        "A", ORIGIN_MS, bucket_ms, (0.1, 0.5, 0.9),
        np.repeat(units_H[:, None], 3, axis=1).astype(np.float32),
        np.repeat(units_H.cumsum()[:, None], 3, axis=1).astype(np.float32),
        units_H.astype(np.float32),
        "n", True, ORIGIN_MS, ORIGIN_MS, Age(0, stale=False),
    )  # fmt: skip
    explanation = StoredExplanation(
        ORIGIN_MS, "n", units=parts,
        cumulative={name: np.cumsum(part).tolist() for name, part in parts.items()},
        factors=factors or {}, special_days=special_days or [""] * len(units_H), **stored,
    )  # fmt: skip
    none: Any = np.zeros(0)
    return SeriesView(
        "A", None, none, none, none, ORIGIN_MS, (), forecast, Age(0, stale=False),
        matched(explanation, forecast),
    )  # fmt: skip


def spans_of(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.span, []).append(row)
    return found


PARTS = {"level": [10.0, 10.0], "week": [3.0, -9.5], "history": [-1.0, -2.0], "network": [0, 0.04]}


def test_each_bar_begins_where_the_one_before_ends() -> None:
    """From 0 to the level, and on to the median; the last bar shows the whole of it."""
    spans = spans_of(explanation_rows(view_of(PARTS)))

    assert list(spans) == ["Next 2 h", "Next hour"]
    for head, *bars, total in spans.values():
        assert head.tone == "head"
        np.testing.assert_allclose([bar.start for bar in bars[1:]], [bar.end for bar in bars[:-1]])
        assert (bars[0].tone, total.tone) == ("level", "total")
        assert total.end == pytest.approx(bars[-1].end, abs=0.01)
        assert head.value == f"{total.value} units"
    assert [(bar.label, bar.value, bar.tone) for bar in spans["Next hour"][1:]] == [
        ("Usual level", "10.0", "level"),
        ("Time of week", "+3.0", "up"),
        ("Earlier history", "−1.0", "down"),
        ("Forecast", "12.0", "total"),
    ]


def test_what_the_contributions_leave_is_shown_as_calibration() -> None:
    """A median below zero is published as zero; its sums with it."""
    rows = spans_of(explanation_rows(view_of(PARTS)))["Next 2 h"]

    assert ("Calibration", "+1.5") in [(row.label, row.value) for row in rows]
    assert rows[-1].value == "12.0"
    assert all(0 <= min(row.start, row.end) <= max(row.start, row.end) <= 1 for row in rows)


def test_small_contributions_are_one_row() -> None:
    parts = {"level": [100.0], "price": [0.8], "clicks": [0.7], "stock": [-0.1], "trend": [5.0]}

    rows = explanation_rows(view_of(parts))

    assert [row.label for row in rows[1:]] == ["Usual level", "Trend", "Other", "Forecast"]
    assert rows[3].value == "+1"


def test_a_special_day_is_named_and_factors_are_changes() -> None:
    """A day ahead comes first for daily buckets."""
    view = view_of(
        {"level": [10.0, 10.0], "special_day": [-6.0, 1.0]},
        bucket_ms=DAY_MS,
        factors={"special_day": [0.4, 1.602], "week": [1.0, 1.0]},
        special_days=["Christmas Day", "Boxing Day"],
    )

    spans = spans_of(explanation_rows(view))

    assert list(spans) == ["Next day", "Next 2 d"]
    assert spans["Next day"][2][1:5:2] == ("Christmas Day", "−60 %")
    assert spans["Next 2 d"][2].label == "Christmas Day, Boxing Day"
    assert spans["Next 2 d"][2].note == ""
    assert spans["Next day"][0].label == "Wed 25 Dec"


@pytest.mark.parametrize(
    ("missing", "text"), [("fallback", "fallback"), ("unseen-product", "new product")]
)
def test_a_forecast_without_an_explanation_says_why(missing: str, text: str) -> None:
    [row] = explanation_rows(view_of({"level": [1.0]}, missing=missing))

    assert row.tone == "none"
    assert text in row.label
    [row] = explanation_rows(view_of({"level": [1.0]})._replace(explanation=None))
    assert "Waiting" in row.label
