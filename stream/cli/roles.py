"""Commands that run one role until they are stopped: `worker`, `api`, `dashboard`."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from stream.cli.context import settings_of, with_store
from stream.errors import UsageError
from stream.settings import Settings

Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; 0 picks a free one.")]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Accept a broker that stored offsets do not fit: features are kept, "
        "reading starts at the earliest record.",
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
    """Count events, close buckets, forecast. Start more of them to share the partitions.

    Example:  SURGECAST_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 SURGECAST_REDIS__URL=redis://redis:6379/0
    surgecast worker
    """
    from stream.kafka.clients import bootstrap_servers
    from stream.processes.ports import require_free_port
    from stream.telemetry import serve_metrics

    settings = with_store(settings_of(context))
    bootstrap_servers(settings)
    host, port = settings.worker.metrics_host, settings.worker.metrics_port
    if port is not None:
        setting = "SURGECAST_WORKER__METRICS_PORT"
        require_free_port(host, port, what="the worker's /metrics", setting=setting)
        serve_metrics(host, port)
    from stream.worker.service import run  # takes seconds to load: a mistake is said before

    run(settings, adopt=adopt)


def router(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Option(help="Topic of order documents. [router.source]")
    ] = None,
) -> None:
    """Explode order documents, or lines keyed by order or customer, into the topic orders.

    Example:  surgecast router --source shop-orders
    """
    from stream.kafka.clients import bootstrap_servers
    from stream.processes.ports import require_free_port
    from stream.telemetry import serve_metrics

    settings = settings_of(context, **({"router": {"source": source}} if source else {}))
    bootstrap_servers(settings)
    if settings.router.source is None:
        raise UsageError("no topic to route: give --source, or set SURGECAST_ROUTER__SOURCE")
    if settings.privacy.key is None:
        with_store(settings)  # the key of the pseudonyms lies there
    host, port = settings.worker.metrics_host, settings.worker.metrics_port
    if port is not None:
        setting = "SURGECAST_WORKER__METRICS_PORT"
        require_free_port(host, port, what="the router's /metrics", setting=setting)
        serve_metrics(host, port)
    from stream.router.service import run

    run(settings)


def api(context: typer.Context, host: Host = None, port: Port = None) -> None:
    """Serve the HTTP API, its documentation at /docs.

    Example:  surgecast api --host 0.0.0.0 --port 8000
    """
    from stream.processes.ports import require_free_port

    settings = with_store(settings_of(context, **_server("api", host, port)))
    require_free_port(
        settings.api.host, settings.api.port, what="the HTTP API", setting="SURGECAST_API__PORT"
    )
    from stream.api.server import serve_api

    serve_api(settings)


def dashboard(context: typer.Context, host: Host = None, port: Port = None) -> None:
    """Serve the live dashboard.

    Example:  surgecast dashboard --port 5006
    """
    from stream.processes.ports import require_free_port

    settings = with_store(settings_of(context, **_server("dashboard", host, port)))
    require_free_port(
        settings.dashboard.host,
        settings.dashboard.port,
        what="the dashboard",
        setting="SURGECAST_DASHBOARD__PORT",
    )
    role("dashboard")(settings)


def role(name: str) -> Callable[[Settings], None]:
    """The function behind a role that another package brings. Raises UsageError if none does."""
    found: list[Any] = [point.load() for point in entry_points(group="surgecast.roles", name=name)]
    if not found:
        raise UsageError(
            f"no installed package brings the role {name}; pip install surgecast again"
        )
    serve: Callable[[Settings], None] = found[0]
    return serve


def _server(section: str, host: str | None, port: int | None) -> dict[str, dict[str, Any]]:
    given = {"host": host, "port": port}
    values = {name: value for name, value in given.items() if value is not None}
    return {section: values} if values else {}
