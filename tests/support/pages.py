"""A real browser, and the Bokeh document of a page in it."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from stream.settings import Settings, child_environment
from tests.support.paths import ROOT

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
_SERVE = """
from stream.settings import load_settings
from dashboards.serve import serve
serve(load_settings())
"""
COLUMN = """([model, column]) => {
  const source = window.Bokeh?.documents?.[0]?.get_model_by_name(model);
  return source ? Array.from(source.data[column]) : [];
}"""


def column(page: Page, model: str, name: str) -> list[Any]:
    """A column of a data source of the page."""
    return list(page.evaluate(COLUMN, [model, name]))


def wait_for(page: Page, condition: str, argument: Any = None, *, seconds: float = 60) -> None:
    """Wait until a JavaScript expression over `column(model, name)` and `given` is true."""
    page.wait_for_function(
        f"(given) => {{ const column = (m, c) => ({COLUMN})([m, c]); return {condition}; }}",
        arg=argument,
        timeout=seconds * 1_000,
    )


@contextmanager
def running_dashboard(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """The dashboard as a process that serves its page; killed at the end if it still runs."""
    environment = child_environment(settings) | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", _SERVE], env=environment, cwd=ROOT) as process:
        try:
            _wait_until_served(f"http://127.0.0.1:{settings.dashboard.port}/live")
            yield process
        finally:
            process.kill()


def _wait_until_served(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/static/page.css", timeout=2).close()
        except OSError:
            assert time.monotonic() < deadline, f"{url} is not served"
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
