"""Runs the HTTP API: `serve_api(settings)` blocks until SIGTERM or SIGINT.

It needs only the store; the workers may be unreachable.
"""

from importlib.metadata import version
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI, Security
from fastapi.responses import HTMLResponse

from stream.api import accuracy, forecasts, health, history, live, series
from stream.api.docs_page import reference_page
from stream.api.explanations import route as explanations
from stream.api.gate.auth import bearer, require_keys_beyond_localhost
from stream.api.gate.connections import server_config
from stream.api.gate.guard import Guard
from stream.api.listing import KeptOrders
from stream.api.problems import MEDIA_TYPE, ProblemDetails, install
from stream.api.shared_reader import SharedReader
from stream.processes.ports import free_port, require_free_port
from stream.readside.explanations import ExplanationReads
from stream.readside.reader import connect
from stream.readside.set_forecasts import ForecastSumReads
from stream.settings import ApiSettings, Settings

log = structlog.get_logger(__name__)


def create_app(redis: Any, settings: ApiSettings) -> FastAPI:
    """Create the application on a Redis client that has `decode_responses=False`."""
    app = FastAPI(
        title="Surgecast",
        version=version("surgecast"),
        description="Demand forecasts of every series, explained, with its history and features.",
        docs_url=None,
        redoc_url=None,
        responses={
            code: {"model": ProblemDetails, "content": {MEDIA_TYPE: {}}, "description": text}
            for code, text in (("4XX", "Client error"), ("5XX", "Server error; try again"))
        },
    )
    app.state.reader = SharedReader(redis)
    app.state.explanations = ExplanationReads(redis)
    app.state.forecast_sums = ForecastSumReads(redis)
    app.state.orders = KeptOrders()
    app.state.listeners = set()
    install(app)
    app.add_middleware(Guard, settings=settings)
    with_key = [Security(bearer)]
    app.include_router(health.open_router)
    for part in (health, series, forecasts, explanations, history, accuracy, live):
        app.include_router(part.router, dependencies=with_key)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    return app


def serve_api(settings: Settings) -> None:
    """Run the API until SIGTERM or SIGINT.

    Raises UsageError if the port is taken or a public address has no keys, ServiceUnavailable if
    no store is configured.
    """
    api = settings.api
    require_keys_beyond_localhost(api)
    port = api.port or free_port()
    require_free_port(api.host, port, what="the HTTP API", setting="SURGECAST_API__PORT")
    redis = connect(settings.redis)
    config = server_config(create_app(redis, api), host=api.host, port=port)
    log.info("api_started", url=f"http://{api.host}:{port}/docs")
    try:
        uvicorn.Server(config).run()
    finally:
        redis.close()
        log.info("api_stopped")
