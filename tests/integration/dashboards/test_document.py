"""A session's document follows the feed by increments."""

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
from tests.support.seeding import Shop, stocked

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=3, n_series=8, partitions=2)


@pytest.fixture
def feed(shop: Shop) -> Feed:
    return Feed(shop.redis)  # not started: the test takes its turns


class Session:
    """A page in a document, with a record of what would go over the wire."""

    def __init__(self, feed: Feed, series_id: str) -> None:
        self.feed = feed
        self.page = Page(feed, series_id)
        self.document = Document()
        feed._turn()
        self.page.attach(self.document)
        self.events: list[Any] = []
        self.document.on_change(self.events.append)

    def turn(self) -> list[Any]:
        """Let the feed and the page take a turn; what was sent."""
        self.events.clear()
        self.feed._turn()
        self.feed._turn_movers()
        self.page.update()
        return list(self.events)

    def column(self, source: str, name: str) -> list[Any]:
        model = self.document.get_model_by_name(source)
        assert isinstance(model, ColumnDataSource)
        return list(model.data[name])

    def word(self, source: str, key: str) -> str:
        return str(self.column(source, "value")[self.column(source, "key").index(key)])


@pytest.fixture
def session(feed: Feed) -> Iterator[Session]:
    yield Session(feed, "total")
    assert feed.n_sessions <= 1


def test_the_chart_holds_the_closed_buckets(session: Session, shop: Shop) -> None:
    """`actuals` equals the history, `fan` the forecast, `open_bucket` the sums so far."""
    session.turn()
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
    """Increments go out as one streamed row; no chart's source is sent whole."""
    session.turn()
    shop.close()
    sent = session.turn()

    streamed = [event for event in sent if isinstance(event, ColumnsStreamedEvent)]
    assert {len(event.data["start"]) for event in streamed} == {1}
    whole = [
        event
        for event in sent
        if isinstance(event, ColumnDataChangedEvent)
        or (isinstance(event, ModelChangedEvent) and event.attr == "data")
    ]
    assert {event.model.name for event in whole} <= {"movers"}  # a list that may change length


def test_nothing_is_sent_while_nothing_changes(session: Session) -> None:
    """A quiet shop costs a quiet wire: at most the pulse and the age."""
    session.turn()
    session.turn()
    sent = session.turn()

    assert {event.model.name for event in sent} <= {"status", "kpis"}
    assert len(sent) <= 2


def test_the_chart_never_outgrows_its_span(session: Session, shop: Shop) -> None:
    """After any number of buckets, seven days are held."""
    for _ in range(6 * 24):
        shop.close()
    session.turn()
    for _ in range(30):
        shop.close()
        session.turn()

    starts = session.column("actuals", "start")
    assert len(starts) == 7 * 24
    assert starts[-1] + shop.bucket_ms == shop.closed_through_ms
    assert session.column("ahead", "start") == starts


def test_choosing_a_series_replaces_what_is_drawn(session: Session, shop: Shop) -> None:
    """The old series stays until the new one has been read, then nothing of it is left."""
    session.turn()
    session.page.search.value = shop.names[2]
    session.page.update()
    assert session.word("status", "series") == "total"

    session.turn()

    view = session.feed.latest.views[shop.names[2]]
    assert session.word("status", "series") == shop.names[2]
    assert session.column("actuals", "units") == view.values_TF[:, UNITS].tolist()
    assert "total" not in session.feed.latest.views


def test_an_unknown_series_is_said_and_changes_nothing(session: Session) -> None:
    """A typing error keeps the chart."""
    session.turn()
    session.page.search.value = "nonsense"
    session.turn()

    assert session.word("status", "search") == "No series “nonsense”"
    assert session.word("status", "series") == "total"


def test_a_shorter_span_holds_less(session: Session) -> None:
    """`24 h` leaves the last day of buckets."""
    session.page.spans.active = 0
    session.turn()

    assert len(session.column("actuals", "start")) == 24


def test_made_up_clicks_are_labelled(session: Session) -> None:
    """Whenever the deployment says its clicks are synthetic, so does the page."""
    session.turn()

    assert session.word("status", "clicks") == "synthetic clicks"
    note = session.column("kpis", "note")[session.column("kpis", "key").index("conversion")]
    assert note == "synthetic clicks"


def test_units_of_the_last_day_are_a_recount(session: Session, shop: Shop) -> None:
    """The tile is the sum of the last 24 closed buckets."""
    session.turn()
    values_TF = session.feed.latest.views["total"].values_TF

    assert session.word("kpis", "units") == f"{values_TF[-24:, UNITS].sum():,.0f}"


def test_live_accuracy_is_shown_beside_the_naive(session: Session, shop: Shop) -> None:
    """Coverage of the band and whether it is calibrated; WQL, and who is better."""
    session.turn()
    assert session.word("kpis", "wql") == "–"

    shop.write_scores(loss=0.25, naive=0.4, covered=0.79)
    session.turn()  # reads them
    session.turn()  # shows them

    column = dict(
        zip(
            session.column("kpis", "key"),
            zip(*(session.column("kpis", name) for name in ("value", "note", "tone")), strict=True),
            strict=True,
        )
    )
    assert column["coverage"] == ("79.0 %", "of 80 % · not calibrated", "")
    assert column["wql"] == ("0.250", "naive 0.400", "up")


def test_an_empty_store_says_what_to_wait_for(redis_client: Redis) -> None:
    """No worker, no events, first bucket filling: each has its words, never a bare chart."""
    session = Session(Feed(redis_client), "total")
    session.turn()
    assert session.word("status", "notice") == "Waiting for the first worker"

    shop = Shop(redis_client, n_series=3, partitions=1)
    shop.open_shop()
    session.turn()
    assert session.word("status", "notice") == "The first hour is filling"

    shop.close()
    session.turn()
    assert session.word("status", "notice") == ""
    session.page.close()


def test_a_silent_worker_is_seen(session: Session, shop: Shop) -> None:
    """When no worker reports any more, the page says so and keeps the last figures."""
    session.turn()
    assert session.word("status", "live") == "Live"

    shop.redis.delete("sc2:stats:seeded")
    session.turn()

    assert session.word("status", "live") == "Worker stopped"
    assert session.word("kpis", "model") == shop.model_id
