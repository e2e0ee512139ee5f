"""The document of a session follows the feed by increments."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.document.events import ColumnDataChangedEvent, ColumnsStreamedEvent, ModelChangedEvent
from bokeh.models import ColumnDataSource
from redis import Redis

from dashboards.document import Page
from dashboards.feed import Feed
from stream.features.definitions import UNITS
from stream.state import keys
from tests.support.seeding import Shop, stocked


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=3, n_series=8, partitions=2)


@pytest.fixture
def feed(shop: Shop) -> Feed:
    return Feed(shop.redis)  # not started: the tests refresh it


class Session:
    """A page in a document, with a record of the events that a browser would receive."""

    def __init__(self, feed: Feed, series_id: str) -> None:
        self.feed = feed
        self.page = Page(feed, series_id)
        self.document = Document()
        feed.refresh()
        self.page.attach(self.document)
        self.events: list[Any] = []
        self.document.on_change(self.events.append)

    def update(self) -> list[Any]:
        """Refresh the feed and the page, and return the events sent."""
        self.events.clear()
        self.feed.refresh()
        self.feed.refresh_movers()
        self.page.update()
        return list(self.events)

    def column(self, source: str, name: str) -> list[Any]:
        model = self.document.get_model_by_name(source)
        assert isinstance(model, ColumnDataSource)
        return list(model.data[name])

    def value(self, source: str, key: str) -> str:
        return str(self.column(source, "value")[self.column(source, "key").index(key)])


@pytest.fixture
def session(feed: Feed) -> Iterator[Session]:
    yield Session(feed, "total")
    assert feed.n_sessions <= 1


def test_the_chart_holds_the_closed_buckets(session: Session, shop: Shop) -> None:
    """`actuals` equals the history, `fan` the forecast, `open_bucket` the sums so far."""
    session.update()
    view = session.feed.latest.views["total"]

    assert session.column("actuals", "start") == view.start_T.tolist()
    assert session.column("actuals", "units") == view.values_TF[:, UNITS].tolist()
    assert session.column("open_bucket", "units") == [shop.sums_SF[:, UNITS].sum()]
    assert view.forecast is not None
    assert session.column("fan", "hi1") == pytest.approx(
        view.forecast.units_HQ[:, -1].tolist(), abs=1e-3
    )
    nested = [session.column("fan", f"lo{n}") for n in (1, 2, 3, 4)]
    assert (np.diff(nested, axis=0) >= 0).all()


def test_a_closed_bucket_is_streamed_not_resent(session: Session, shop: Shop) -> None:
    """A closed bucket is one streamed row; no source of a chart is sent whole."""
    session.update()
    shop.close()
    sent = session.update()

    streamed = [event for event in sent if isinstance(event, ColumnsStreamedEvent)]
    assert {len(event.data["start"]) for event in streamed} == {1}
    replaced = [
        event
        for event in sent
        if isinstance(event, ColumnDataChangedEvent)
        or (isinstance(event, ModelChangedEvent) and event.attr == "data")
    ]
    assert {event.model.name for event in replaced} <= {"movers"}  # a list whose length may change


def test_nothing_is_sent_while_nothing_changes(session: Session) -> None:
    """Without new events, at most the pulse and the age are sent."""
    session.update()
    session.update()
    sent = session.update()

    assert {event.model.name for event in sent} <= {"status", "kpis"}
    assert len(sent) <= 2


def test_the_chart_never_exceeds_its_span(session: Session, shop: Shop) -> None:
    """After any number of buckets, the chart has seven days."""
    for _ in range(6 * 24):
        shop.close()
    session.update()
    for _ in range(30):
        shop.close()
        session.update()

    starts = session.column("actuals", "start")
    assert len(starts) == 7 * 24
    assert starts[-1] + shop.bucket_ms == shop.closed_through_ms
    assert session.column("ahead", "start") == starts


def test_selecting_a_series_replaces_the_chart(session: Session, shop: Shop) -> None:
    """The old series stays until the new one has been read, then it is gone."""
    session.update()
    session.page.search.value = shop.names[2]
    session.page.update()
    assert session.value("status", "series") == "total"

    session.update()

    view = session.feed.latest.views[shop.names[2]]
    assert session.value("status", "series") == shop.names[2]
    assert session.column("actuals", "units") == view.values_TF[:, UNITS].tolist()
    assert "total" not in session.feed.latest.views


def test_an_unknown_series_is_reported_and_changes_nothing(session: Session) -> None:
    """A typing error keeps the chart."""
    session.update()
    session.page.search.value = "nonsense"
    session.update()

    assert session.value("status", "search") == "No series “nonsense”"
    assert session.value("status", "series") == "total"


def test_a_shorter_span_shows_fewer_buckets(session: Session) -> None:
    """`24 h` shows the last day of buckets."""
    session.page.spans.active = 0
    session.update()

    assert len(session.column("actuals", "start")) == 24


def test_synthetic_clicks_are_labelled(session: Session) -> None:
    """If the deployment labels its clicks synthetic, so does the page."""
    session.update()

    assert session.value("status", "clicks") == "synthetic clicks"
    note = session.column("kpis", "note")[session.column("kpis", "key").index("conversion")]
    assert note == "synthetic clicks"


def test_units_of_the_last_day_equal_a_recount(session: Session, shop: Shop) -> None:
    """The tile is the sum of the last 24 closed buckets."""
    session.update()
    values_TF = session.feed.latest.views["total"].values_TF

    assert session.value("kpis", "units") == f"{values_TF[-24:, UNITS].sum():,.0f}"


def test_live_accuracy_is_shown_with_the_naive_score(session: Session, shop: Shop) -> None:
    """Coverage with its calibration state; WQL with the naive score and a tone."""
    session.update()
    assert session.value("kpis", "wql") == "–"

    shop.write_scores(loss=0.25, naive=0.4, covered=0.79)
    session.update()  # reads the scores
    session.update()  # shows them

    tiles = dict(
        zip(
            session.column("kpis", "key"),
            zip(*(session.column("kpis", name) for name in ("value", "note", "tone")), strict=True),
            strict=True,
        )
    )
    assert tiles["coverage"] == ("79.0 %", "nominal 80 % · not calibrated", "")
    assert tiles["wql"] == ("0.250", "naive 0.400", "up")


def test_a_watched_series_is_explained_when_its_forecast_changes(
    feed: Feed, shop: Shop, redis_client: Redis
) -> None:
    """The page asks the worker, shows the answer, and asks again after the next close."""
    name = shop.names[3]
    asked = keys.of(1, "asked")
    session = Session(feed, name)
    session.update()
    assert "Waiting" in session.column("explanation", "label")[0]
    assert redis_client.smembers(asked) == {b"1"}
    redis_client.delete(asked)

    parts = shop.explain(name)
    session.update()
    labels = session.column("explanation", "label")
    assert {"Usual level", "Time of week", "Model baseline", "Forecast"} <= set(labels)
    level = session.column("explanation", "value")[labels.index("Usual level")]
    assert float(level.replace(",", "")) == pytest.approx(parts["level"].sum(), abs=0.1)
    assert "explanation" not in {event.model.name for event in session.update()}
    assert not redis_client.exists(asked)

    before = session.column("explanation", "label")[0]
    shop.close()
    session.update()
    assert session.column("explanation", "label")[0] == before
    shop.explain(name)
    session.update()
    assert session.column("explanation", "label")[0] != before
    session.page.close()


def test_an_empty_chart_has_a_notice(redis_client: Redis) -> None:
    """Without a worker, and while the first bucket is open, a notice explains the empty chart."""
    session = Session(Feed(redis_client), "total")
    session.update()
    assert session.value("status", "notice") == "Waiting for the first worker"

    shop = Shop(redis_client, n_series=3, partitions=1)
    shop.open_shop()
    session.update()
    assert session.value("status", "notice") == "Collecting the first hour"

    shop.close()
    session.update()
    assert session.value("status", "notice") == ""
    session.page.close()


def test_a_silent_worker_is_reported(session: Session, shop: Shop) -> None:
    """Without a reporting worker, the page says so and keeps the last values."""
    session.update()
    assert session.value("status", "live") == "Live"

    shop.redis.delete("sc2:stats:seeded")
    session.update()

    assert session.value("status", "live") == "Worker stopped"
    assert session.value("kpis", "model") == shop.model_id
