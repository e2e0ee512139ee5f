"""The dashboard server: access, content, start and stop."""

import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from redis import Redis

from stream.errors import ServiceUnavailable, UsageError
from stream.processes.ports import free_port
from stream.settings import Settings, load_settings
from tests.support.pages import running_dashboard
from tests.support.seeding import stocked


def settings_for(url: str, port: int) -> Settings:
    return load_settings(redis={"url": url}, dashboard={"port": port})


def fetch(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture
def server(valkey_url: str, redis_client: Redis) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A dashboard in a separate process, and its port."""
    stocked(redis_client, days=1, n_series=4, partitions=1)
    port = free_port()
    with running_dashboard(settings_for(valkey_url, port)) as process:
        yield process, port


def handshake(port: int, origin: str) -> int:
    """Return the status of a websocket handshake from a page of that origin."""
    token = re.search(r'"token":"([^"]+)"', fetch(f"http://127.0.0.1:{port}/live"))
    assert token is not None
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            f"GET /live/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nOrigin: {origin}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            f"Sec-WebSocket-Protocol: bokeh, {token[1]}\r\n\r\n".encode()
        )
        return int(connection.recv(1_000).split()[1])


def test_foreign_pages_cannot_connect(server: tuple[subprocess.Popen[bytes], int]) -> None:
    """Only its own pages connect; sessions are signed; SIGTERM ends the server cleanly."""
    process, port = server
    page = fetch(f"http://127.0.0.1:{port}/live")

    # no external resources
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", page)
    assert "Bokeh" in fetch(f"http://127.0.0.1:{port}/live/static/page.js")
    assert handshake(port, f"http://127.0.0.1:{port}") == 101
    assert handshake(port, "http://elsewhere.example") == 403
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetch(f"http://127.0.0.1:{port}/live?bokeh-session-id=chosen-by-the-caller")

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0


def test_a_taken_port_is_reported_with_the_setting(valkey_url: str) -> None:
    """The error is one line with the port and the setting that changes it."""
    from dashboards.serve import serve

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f":{port} .*SURGECAST_DASHBOARD__PORT") as caught:
            serve(settings_for(valkey_url, port))

    assert "\n" not in str(caught.value)


def test_a_missing_store_is_reported_with_the_setting() -> None:
    """Without a URL the error names the setting."""
    from dashboards.serve import serve

    if "SURGECAST_REDIS__URL" in os.environ:
        pytest.fail("the test environment must not name a store")
    with pytest.raises(ServiceUnavailable, match="SURGECAST_REDIS__URL"):
        serve(Settings())
