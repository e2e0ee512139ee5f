"""The page in a real browser, over a seeded store that moves."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page
from redis import Redis

from stream.processes.ports import free_port
from stream.settings import load_settings
from tests.support.pages import column, running_dashboard, wait_for
from tests.support.seeding import Shop, stocked


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    """A seeded shop in the store."""
    return stocked(redis_client, days=9, n_series=40, partitions=2)


@pytest.fixture
def url(valkey_url: str, shop: Shop) -> Iterator[str]:
    """Address of a page over the shop, served by a process of its own."""
    port = free_port()
    with running_dashboard(
        load_settings(redis={"url": valkey_url}, dashboard={"port": port})
    ) as process:
        yield f"http://127.0.0.1:{port}/live"
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_the_page_follows_the_shop(
    url: str, shop: Shop, browser: Any, width: int, height: int
) -> None:
    """Closed buckets, fan and open bucket change in the browser as in the store."""
    page: Page = browser.new_page(viewport={"width": width, "height": height})
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    wait_for(page, 'column("actuals", "start").length > 100 && column("fan", "x").length > 0')
    first, fan = column(page, "actuals", "start"), column(page, "fan", "median")
    assert first[-1] + shop.bucket_ms == shop.closed_through_ms

    shop.trickle(0.3)
    shop.flush()
    wait_for(
        page,
        'column("open_bucket", "units")[0] === given',
        int(shop.sums_SF[:, 0].sum()),
    )
    shop.close()
    wait_for(page, 'column("actuals", "start").at(-1) > given', first[-1])
    assert column(page, "actuals", "start") == [*first[1:], first[-1] + shop.bucket_ms]
    # the fan is a separate message and may arrive after the actuals
    wait_for(page, 'String(column("fan", "median")) !== String(given)', fan)

    # a click selects a series and changes the address
    page.locator(".mover").first.click()
    chosen = page.locator(".mover").first.get_attribute("data-series")
    page.wait_for_url(f"{url}?series={chosen}")
    wait_for(page, "document.querySelector('h1').textContent === given", chosen)
    # the search does the same from the keyboard
    page.locator(".search input").fill("garden")
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('h1').textContent === 'Garden'")

    # nothing is cut off, loaded from elsewhere, or in error
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.documentElement.scrollHeight") == height
    assert page.locator(".notice").is_hidden()
    assert all(request.startswith(url.removesuffix("/live")) for request in requests)
    assert errors == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800), (1920, 1080)])
def test_the_page_explains_the_forecast(
    url: str, shop: Shop, browser: Any, width: int, height: int
) -> None:
    """A waterfall from the usual level to the median, for the horizon and the next bucket."""
    name = shop.names[3]
    shop.explain(name)
    page: Page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(f"{url}?series={name}")
    panel = page.locator(".why")
    panel.locator("[data-tone=total]").wait_for(timeout=60_000)

    assert panel.locator("th").all_inner_texts()[0] == "Usual level"
    assert panel.locator("th").all_inner_texts()[-1] == "Forecast"
    pressed = panel.locator("[aria-pressed=true]")
    assert pressed.all_inner_texts() == ["Next 24 h"]
    total = panel.locator("caption b").inner_text()
    panel.get_by_text("Next hour").click()
    assert pressed.all_inner_texts() == ["Next hour"]
    assert panel.locator("caption b").inner_text() != total
    level = panel.locator("[data-tone=level] i").bounding_box()
    end = panel.bounding_box()
    assert level is not None
    assert end is not None
    assert level["width"] > 5
    assert level["x"] + level["width"] <= end["x"] + end["width"]
    # nothing is cut off, and no panel covers another
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert panel.evaluate("(why) => why.scrollHeight <= why.clientHeight")
    boxes = page.locator(".card").evaluate_all(
        """(all) => all.map((card) => card.getBoundingClientRect())
          .map((box) => [box.x, box.y, box.right, box.bottom])"""
    )
    assert not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        for at, a in enumerate(boxes)
        for b in boxes[at + 1 :]
    )


#: The longest notes of a deployment, by tile.
LONGEST_NOTES = {
    "orders": ["last hour"],
    "units": ["−100 % vs mean day", "×99,999 vs mean day", "+123,456 in open 15 min"],
    "revenue": ["−100 % vs mean day", "×99,999 vs mean day", "+1,234,567 in open 15 min"],
    "views": ["−100 % · synthetic", "+1,234,567 in open 15 min · synthetic"],
    "conversion": ["synthetic clicks", "purchases per view"],
    "events": ["all topics"],
    "latency": ["event → forecast", "p99 119 min"],
    "watermark": ["event time", "30 Nov 2011 · 86,400×"],
    "coverage": ["no scores yet", "nominal 80 % · not calibrated"],
    "wql": ["no scores yet", "no naive score yet", "naive 12.345"],
    "model": [
        "champion",
        "no forecast yet",
        "fallback, no champion yet",
        "transformer-20111130-1a2b3c4d warming up, 100 %",
    ],
}
#: The longest ids of models.
MODELS = ["exponential-smoothing", "lstm-20111130-1a2b3c4d", "transformer-20111130-1a2b3c4d"]
#: The longest values that `dashboards.text` writes; a number that is cut off is another number.
LONGEST_VALUES = {
    "orders": ["0.00", "99,999"],
    "units": ["99,999", "999 k", "9.99 M", "99.9 M", "999 M"],
    "revenue": ["99,999", "999 k", "9.99 M", "99.9 M", "999 M"],
    "views": ["99,999", "999 k", "9.99 M", "99.9 M", "999 M"],
    "conversion": ["38.57 %"],
    "events": ["9,999", "99.9 k"],
    "latency": ["999 ms", "9.9 s", "119 min"],
    "watermark": ["23:59"],
    "coverage": ["79.3 %"],
    "wql": ["12.345"],
    "model": MODELS,
}
#: Labels that do not fit their tiles.
CUT_LABELS = """() => [...document.querySelectorAll(".tile-label")]
  .filter((label) => label.scrollWidth > label.clientWidth).map((label) => label.textContent)"""
#: Puts texts into their tiles and returns those that do not fit.
CUT_OFF = """([what, longest]) => {
  const cut = [];
  for (const [key, texts] of Object.entries(longest)) {
    const note = document.querySelector(`[data-kpi="${key}"] [data-${what}]`);
    const box = note.closest("div");  // a value is a span in it
    for (const text of texts) {
      note.textContent = text;
      if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight)
        cut.push(`${key}: ${text}`);
    }
  }
  return cut;
}"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_no_text_of_a_tile_is_cut_off(url: str, browser: Any, width: int, height: int) -> None:
    """Neither the present texts nor the longest ones; the page still fits the window."""
    page: Page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(url)
    wait_for(page, 'column("actuals", "start").length > 100 && column("fan", "x").length > 0')
    tiles = page.locator("[data-kpi]").evaluate_all("(all) => all.map((t) => t.dataset.kpi)")
    shown = dict(zip(column(page, "kpis", "key"), column(page, "kpis", "note"), strict=True))

    assert sorted(tiles) == sorted(LONGEST_NOTES)
    assert page.evaluate(CUT_OFF, ["note", {key: [note] for key, note in shown.items()}]) == []
    assert page.evaluate(CUT_OFF, ["note", LONGEST_NOTES]) == []
    assert page.evaluate(CUT_OFF, ["value", LONGEST_VALUES]) == []
    assert page.evaluate(CUT_LABELS) == []
    assert page.evaluate("document.documentElement.scrollHeight") == height


def test_the_series_of_a_typed_address_is_shown(url: str, shop: Shop, browser: Any) -> None:
    """Also without the path of the page: the redirect keeps the query."""
    page: Page = browser.new_page()
    page.goto(f"{url.removesuffix('/live')}/?series={shop.names[3]}")
    wait_for(page, "document.querySelector('h1').textContent === given", shop.names[3])
    assert page.url == f"{url}?series={shop.names[3]}"
    page.goto(f"{url.removesuffix('/live')}/")
    assert page.url == url


def test_closed_tabs_are_forgotten(url: str, shop: Shop, browser: Any) -> None:
    """After many tabs have been closed, the store is read no more than one tab needs."""
    for name in shop.names[:12]:
        page = browser.new_page()
        page.goto(f"{url}?series={name}")
        wait_for(page, 'column("actuals", "start").length > 0')
        page.close()
    page = browser.new_page()
    page.goto(url)
    wait_for(page, 'column("actuals", "start").length > 0')
    deadline = time.monotonic() + 90
    reads = _range_reads_per_refresh(shop.redis)
    while time.monotonic() < deadline and reads > 8:
        reads = _range_reads_per_refresh(shop.redis)

    assert reads <= 8


def _range_reads_per_refresh(redis: Any) -> float:
    """Range reads per refresh of the feed, over the next ten; each gets `sc2:info` once."""

    def calls(command: str) -> int:
        stats = redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
        return int(stats["calls"])

    refreshes, reads = calls("get"), calls("getrange")
    deadline = time.monotonic() + 90
    while (n := calls("get") - refreshes) < 10:
        assert time.monotonic() < deadline, "the feed does not refresh"
        time.sleep(0.1)
    return (calls("getrange") - reads) / n
