"""Runs the dashboard: `serve(settings)` blocks until SIGTERM or SIGINT.

Sessions are signed with a key created at start, and websockets are accepted only from this server's
pages and `dashboard.origins`, so that no other site can read the data.
"""

import logging
import signal
import threading
from pathlib import Path
from typing import Final

import structlog
from bokeh.application import Application
from bokeh.application.handlers import DirectoryHandler
from bokeh.server.server import Server
from bokeh.util.token import generate_secret_key
from tornado.web import RequestHandler

from dashboards.shared_feed import close_shared_feed, shared_feed
from stream.processes.ports import free_port, require_free_port
from stream.settings import DashboardSettings, Settings

LIVE: Final = Path(__file__).parent / "live"
_LOCAL: Final = ("127.0.0.1", "localhost")

log = structlog.get_logger(__name__)


class _Root(RequestHandler):
    """Redirects `/` to `/live` and keeps the query, which Bokeh's redirect drops."""

    def get(self) -> None:
        query = self.request.query
        self.redirect(f"/live?{query}" if query else "/live")


def origins(settings: DashboardSettings, port: int) -> list[str]:
    """Return the hosts whose pages may open a websocket.

    >>> origins(DashboardSettings(host="127.0.0.1"), 5006)
    ['127.0.0.1:5006', 'localhost:5006']
    >>> origins(DashboardSettings(host="0.0.0.0", origins=("shop.example",)), 80)
    ['127.0.0.1:80', 'localhost:80', 'shop.example']
    """
    hosts = list(_LOCAL)
    if settings.host not in {*_LOCAL, "0.0.0.0", "::"}:  # noqa: S104 -- compared, not bound
        hosts.append(settings.host)
    return [*(f"{host}:{port}" for host in hosts), *settings.origins]


def start(settings: Settings) -> Server:
    """Start a server that listens; the caller runs its loop.

    Raises UsageError if the port is taken.
    """
    dashboard = settings.dashboard
    port = dashboard.port or free_port()
    require_free_port(
        dashboard.host, port, what="the dashboard", setting="SURGECAST_DASHBOARD__PORT"
    )
    server = Server(
        {"/live": Application(DirectoryHandler(filename=str(LIVE)))},
        address=dashboard.host,
        port=port,
        extra_patterns=[(r"/", _Root)],
        allow_websocket_origin=origins(dashboard, port),
        generate_session_ids=True,
        sign_sessions=True,
        secret_key=generate_secret_key().encode(),
        session_token_expiration=3_600,
        keep_alive_milliseconds=10_000,
        check_unused_sessions_milliseconds=5_000,
        unused_session_lifetime_milliseconds=5_000,
    )
    server.start()
    return server


def serve(settings: Settings) -> None:
    """Run the dashboard until SIGTERM or SIGINT.

    Raises UsageError if the port is taken, ServiceUnavailable if no store is configured.
    """
    # Bokeh warns about every tab that closes between two updates
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
    feed = shared_feed(settings)
    try:
        server = start(settings)
        loop = server.io_loop
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: loop.add_callback_from_signal(loop.stop))
        log.info("dashboard_started", url=f"http://{settings.dashboard.host}:{server.port}/live")
        try:
            loop.start()
        finally:
            server.stop()
            log.info("dashboard_stopped", sessions=feed.n_sessions)
    finally:
        close_shared_feed()
