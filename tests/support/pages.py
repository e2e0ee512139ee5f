"""A real browser, and the page's own Bokeh document in it."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
COLUMN = """([model, column]) => {
  const source = window.Bokeh?.documents?.[0]?.get_model_by_name(model);
  return source ? Array.from(source.data[column]) : [];
}"""


def column(page: Page, model: str, name: str) -> list[Any]:
    """A column of a source, read from the page's own Bokeh document."""
    return list(page.evaluate(COLUMN, [model, name]))


def wait_for(page: Page, condition: str, argument: Any = None, *, seconds: float = 15) -> None:
    """Wait until an expression over `column(model, name)` and `given` holds in the page."""
    page.wait_for_function(
        f"(given) => {{ const column = (m, c) => ({COLUMN})([m, c]); return {condition}; }}",
        arg=argument,
        timeout=seconds * 1_000,
    )


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
