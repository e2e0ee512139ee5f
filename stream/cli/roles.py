"""Commands that run one role until they are stopped: `worker`, `router`, `api`, `dashboard`."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from stream.cli.context import require_folder, require_store, settings_of
from stream.errors import UsageError
from stream.settings import Settings

Port = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port to listen on; 0 picks a free one.")
]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Accept a broker that does not match the stored offsets: keep the features, "
        "read from the earliest record.",
    ),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(worker)
    app.command()(router)
    app.command()(api)
    app.command()(dashboard)


def worker(context: typer.Context, adopt: Adopt = False) -> None:
    """Count events, close buckets and forecast.

    Several workers share the partitions. Needs SURGECAST_KAFKA__BOOTSTRAP_SERVERS and
    SURGECAST_REDIS__URL.

    Example:  SURGECAST_REDIS__URL=redis://redis:6379/0 surgecast worker
    """
    from stream.kafka.clients import require_broker
    from stream.processes.ports import require_free_port
    from stream.telemetry import serve_metrics

    settings = require_store(settings_of(context))
    require_broker(settings)
    require_folder(settings)
    host, port = settings.worker.metrics_host, settings.worker.metrics_port
    if port is not None:
        setting = "SURGECAST_WORKER__METRICS_PORT"
        require_free_port(host, port, what="the worker's /metrics", setting=setting)
        serve_metrics(host, port)
    from stream.worker.service import run  # takes seconds to import: report mistakes before

    run(settings, adopt=adopt)


def router(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Option(help="Topic with the order documents. [router.source]")
    ] = None,
) -> None:
    """Split order documents into lines of the topic orders.

    Also re-keys order lines that are keyed by order or customer. Needs
    SURGECAST_KAFKA__BOOTSTRAP_SERVERS.

    Example:  surgecast router --source shop-orders
    """
    from stream.kafka.clients import require_broker
    from stream.processes.ports import require_free_port
    from stream.telemetry import serve_metrics

    settings = settings_of(context, **({"router": {"source": source}} if source else {}))
    require_broker(settings)
    if settings.router.source is None:
        raise UsageError("no source topic: give --source, or set SURGECAST_ROUTER__SOURCE")
    if settings.privacy.key is None:
        require_store(settings)  # the store has the pseudonym key
    host, port = settings.worker.metrics_host, settings.worker.metrics_port
    if port is not None:
        setting = "SURGECAST_WORKER__METRICS_PORT"
        require_free_port(host, port, what="the router's /metrics", setting=setting)
        serve_metrics(host, port)
    from stream.router.service import run

    run(settings)


def api(context: typer.Context, host: Host = None, port: Port = None) -> None:
    """Serve the HTTP API; its documentation is at /docs.

    Needs SURGECAST_REDIS__URL, and SURGECAST_API__KEYS to listen on a non-local address.

    Example:  surgecast api --port 8000
    """
    from stream.processes.ports import require_free_port

    settings = require_store(settings_of(context, **_server("api", host, port)))
    require_free_port(
        settings.api.host, settings.api.port, what="the HTTP API", setting="SURGECAST_API__PORT"
    )
    from stream.api.server import serve_api

    serve_api(settings)


def dashboard(context: typer.Context, host: Host = None, port: Port = None) -> None:
    """Serve the live dashboard.

    Needs SURGECAST_REDIS__URL.

    Example:  surgecast dashboard --port 5006
    """
    from stream.processes.ports import require_free_port

    settings = require_store(settings_of(context, **_server("dashboard", host, port)))
    require_free_port(
        settings.dashboard.host,
        settings.dashboard.port,
        what="the dashboard",
        setting="SURGECAST_DASHBOARD__PORT",
    )
    role("dashboard")(settings)


def role(name: str) -> Callable[[Settings], None]:
    """Return the entry point of a role from another package. Raises UsageError if there is none."""
    found: list[Any] = [point.load() for point in entry_points(group="surgecast.roles", name=name)]
    if not found:
        raise UsageError(
            f"no installed package provides the role {name}; reinstall: pip install -U surgecast"
        )
    serve: Callable[[Settings], None] = found[0]
    return serve


def _server(section: str, host: str | None, port: int | None) -> dict[str, dict[str, Any]]:
    given = {"host": host, "port": port}
    values = {name: value for name, value in given.items() if value is not None}
    return {section: values} if values else {}
