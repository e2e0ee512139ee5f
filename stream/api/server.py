"""The HTTP API: `serve_api(settings)` blocks until it is told to stop.

Reads the store alone; the workers need not be reachable from here. Routes are in `stream/feed/api`.
"""

from importlib.metadata import version
from typing import Any

import structlog
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse

from stream.api import accuracy, forecasts, live, series
from stream.api import health as operations
from stream.api import history as past
from stream.api.auth import key_check, require_keys_beyond_localhost
from stream.api.docs_page import reference_page
from stream.api.problems import MEDIA_TYPE, ProblemDetails, install
from stream.api.shared_reader import SharedReader
from stream.processes.ports import free_port, require_free_port
from stream.readside.reader import connect
from stream.settings import ApiSettings, Settings

_STOP_WITHIN_S = 3

log = structlog.get_logger(__name__)


def create_app(redis: Any, settings: ApiSettings) -> FastAPI:
    """The application over a Redis client with `decode_responses=False`."""
    app = FastAPI(
        title="Surgecast",
        version=version("surgecast"),
        description="Demand forecasts of every series, and the features they come from.",
        docs_url=None,
        redoc_url=None,
        responses={
            code: {"model": ProblemDetails, "content": {MEDIA_TYPE: {}}, "description": meaning}
            for code, meaning in (("4XX", "The request's fault"), ("5XX", "Ours; try again"))
        },
    )
    app.state.gate = SharedReader(redis)
    app.state.listeners = set()
    install(app)
    keyed = [Depends(key_check(settings))]
    app.include_router(operations.open_router)
    for part in (operations, series, forecasts, past, accuracy, live):
        app.include_router(part.router, dependencies=keyed)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    return app


def serve_api(settings: Settings) -> None:
    """Run the API until SIGTERM or SIGINT.

    Raises UsageError for a taken port, or for no keys on an address others can reach;
    ServiceUnavailable when no store is named.
    """
    wanted = settings.api
    require_keys_beyond_localhost(wanted)
    port = wanted.port or free_port()
    require_free_port(wanted.host, port, what="the HTTP API", setting="SURGECAST_API__PORT")
    redis = connect(settings.redis)
    config = uvicorn.Config(
        create_app(redis, wanted),
        host=wanted.host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    log.info("api_started", url=f"http://{wanted.host}:{port}/docs")
    try:
        uvicorn.Server(config).run()
    finally:
        redis.close()
        log.info("api_stopped")
