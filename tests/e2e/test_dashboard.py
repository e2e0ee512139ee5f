"""The page in a real browser, over a seeded store that moves on."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from redis import Redis

from stream.processes.ports import free_port
from stream.settings import child_environment, load_settings
from tests.support.pages import column, wait_for
from tests.support.seeding import Shop, stocked

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
RUN = "from stream.settings import load_settings; from dashboards.serve import serve; "
RUN += "serve(load_settings())"


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=9, n_series=40, partitions=2)


@pytest.fixture
def url(valkey_url: str, shop: Shop) -> Iterator[str]:
    port = free_port()
    settings = load_settings(redis={"url": valkey_url}, dashboard={"port": port})
    environment = child_environment(settings) | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", RUN], env=environment, cwd=ROOT)
    address = f"http://127.0.0.1:{port}/live"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/static/page.css", timeout=2).close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    process.terminate()
    assert process.wait(timeout=15) == 0


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_the_page_follows_the_shop(
    url: str, shop: Shop, browser: Any, width: int, height: int
) -> None:
    """Closed buckets, fan and open bucket change in the browser as they do in the store."""
    page: Page = browser.new_page(viewport={"width": width, "height": height})
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
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
    # the fan is a message of its own and may come a moment after the actuals
    wait_for(page, 'String(column("fan", "median")) !== String(given)', fan)

    # a click chooses a series, and the address follows
    page.locator(".mover").first.click()
    chosen = page.locator(".mover").first.get_attribute("data-series")
    page.wait_for_url(f"{url}?series={chosen}")
    wait_for(page, "document.querySelector('h1').textContent === given", chosen)
    # the search does the same from the keyboard
    page.locator(".search input").fill("garden")
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('h1').textContent === 'Garden'")

    # nothing is cut off, nothing came from elsewhere, nothing went wrong
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.documentElement.scrollHeight") == height
    assert page.locator(".notice").is_hidden()
    assert all(request.startswith(url.removesuffix("/live")) for request in requests)
    assert complaints == []


#: The longest notes below the figures that a deployment brings about, by tile.
LONGEST_NOTES = {
    "orders": ["last hour"],
    "units": ["−100 % vs mean day", "×99,999 vs mean day", "+123,456 in open 15 min"],
    "revenue": ["−100 % vs mean day", "×99,999 vs mean day", "+1,234,567 in open 15 min"],
    "views": ["−100 % · synthetic", "+1,234,567 in open 15 min · synthetic"],
    "conversion": ["synthetic clicks", "purchases / view"],
    "events": ["all inputs"],
    "latency": ["event → forecast", "p99 119 min"],
    "watermark": ["event time", "30 Nov 2011 · 86,400×"],
    "coverage": ["none due yet", "of 80 % · not calibrated"],
    "wql": ["none due yet", "no naive yet", "naive 12.345"],
    "model": [
        "carried state",
        "no forecast yet",
        "until a network is trained",
        "transformer-20111130-1a2b3c4d gets ready, 100 %",
    ],
}
#: The longest ids of models.
MODELS = ["exponential-smoothing", "lstm-20111130-1a2b3c4d", "transformer-20111130-1a2b3c4d"]
#: Long values, as `dashboards.text` writes them: a number that is cut off is another number.
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
#: Labels that are cut off in their tiles.
CUT_LABELS = """() => [...document.querySelectorAll(".tile-label")]
  .filter((label) => label.scrollWidth > label.clientWidth).map((label) => label.textContent)"""
#: Puts texts into their tiles, all else standing still, and tells those that do not fit.
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
def test_no_note_below_a_figure_is_cut_off(url: str, browser: Any, width: int, height: int) -> None:
    """Neither those that are shown, nor the longest ones; and the page still fits the window."""
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
    """Without the path of the page too: what is asked for survives the way there."""
    page: Page = browser.new_page()
    page.goto(f"{url.removesuffix('/live')}/?series={shop.names[3]}")
    wait_for(page, "document.querySelector('h1').textContent === given", shop.names[3])
    assert page.url == f"{url}?series={shop.names[3]}"
    page.goto(f"{url.removesuffix('/live')}/")
    assert page.url == url


def test_closed_tabs_are_forgotten(url: str, shop: Shop, browser: Any) -> None:
    """After many tabs have come and gone, the store is asked for no more than one tab needs."""
    for name in shop.names[:12]:
        page = browser.new_page()
        page.goto(f"{url}?series={name}")
        wait_for(page, 'column("actuals", "start").length > 0')
        page.close()
    page = browser.new_page()
    page.goto(url)
    wait_for(page, 'column("actuals", "start").length > 0')
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and _range_reads_per_s(shop.redis) > 40:
        time.sleep(1)

    assert _range_reads_per_s(shop.redis) <= 40


def _range_reads_per_s(redis: Any) -> float:
    def calls() -> int:
        stats = redis.info("commandstats").get("cmdstat_getrange", {"calls": 0})
        return int(stats["calls"])

    before = calls()
    time.sleep(1)  # the rate is that of a second
    return calls() - before
