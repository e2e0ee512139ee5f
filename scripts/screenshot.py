"""Takes a screenshot of the dashboard: python scripts/screenshot.py URL OUT.png [--series ID].

Waits until the chart has closed buckets and a forecast. Needs playwright and Chromium (Debian's, or
the one given with --chromium). Exits with 1 if the page logs an error.
"""

import argparse
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

SPANS = ["24h", "3d", "7d"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
_DRAWN = """() => {
  const model = (name) => window.Bokeh?.documents?.[0]?.get_model_by_name(name);
  const rows = (name) => model(name)?.data?.start?.length ?? 0;
  return rows("actuals") > 0 && rows("fan") > 0;
}"""


def take(page: Page, url: str, out: Path, *, settle_ms: int, span: int | None) -> list[str]:
    """Write the screenshot; return the errors that the page logged."""
    errors: list[str] = []
    page.on(
        "console",
        lambda message: errors.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.wait_for_function(_DRAWN, timeout=60_000)
    if span is not None:
        page.evaluate(
            "(at) => { window.Bokeh.documents[0].get_model_by_name('span').active = at }", span
        )
    page.wait_for_timeout(settle_ms)
    out.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(out))
    return errors


def main() -> int:
    """Take a screenshot of the running dashboard."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--series", help="series to select, for example category:garden")
    parser.add_argument("--span", choices=SPANS, help="span of the past to show")
    parser.add_argument("--settle-ms", type=int, default=2_000)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    span = SPANS.index(given.span) if given.span else None
    url = f"{given.url}?{urlencode({'series': given.series})}" if given.series else given.url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": given.width, "height": given.height})
        errors = take(page, url, given.out, settle_ms=given.settle_ms, span=span)
        browser.close()
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
