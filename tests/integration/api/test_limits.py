"""What an API that is abused refuses, and that others do not notice."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from redis import Redis

from stream.api.gate import connections, guard
from stream.errors import UsageError
from stream.settings import load_settings
from tests.support.api_client import KEY, Api
from tests.support.seeding import Shop, stocked


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=2, n_series=12, partitions=2)


@pytest.fixture
def api(shop: Shop) -> Iterator[Api]:
    with Api(shop.redis, load_settings(api={"keys": [KEY]}).api) as api:
        yield api


@pytest.mark.parametrize("key", ["", "sh0rt", "with spaces inside it", "nön-ascii-characters"])
def test_a_key_that_is_easily_guessed_is_a_wrong_setting(key: str) -> None:
    """The error names the setting, and does not repeat the key."""
    with pytest.raises(UsageError, match="SURGECAST_API__KEYS") as caught:
        load_settings(api={"keys": [key]})

    assert not key or key not in str(caught.value)


def _exchange(api: Api, head: str, chunks: Iterable[bytes] = ()) -> tuple[int, Any]:
    """Send a head and chunks by hand; return status and problem."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        for chunk in chunks:
            connection.sendall(chunk)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


def _head(*lines: str) -> str:
    return "\r\n".join(("POST /v1/forecasts:batch HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""))


AUTHORIZED = f"Authorization: Bearer {KEY}"


def test_a_wrong_key_is_refused_before_the_body_arrives(api: Api) -> None:
    """Of a declared body no byte is waited for."""
    status, problem = _exchange(api, _head("Content-Length: 300000000"))

    assert (status, problem["type"]) == (401, "urn:surgecast:problem:wrong-key")


def test_a_large_body_is_refused_by_its_declared_size(api: Api) -> None:
    """Also with the right key, before any of it arrives; or as soon as too much has."""
    status, problem = _exchange(api, _head(AUTHORIZED, "Content-Length: 300000000"))
    assert (status, problem["type"]) == (413, "urn:surgecast:problem:body-too-large")

    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunks = (chunk for _ in range(guard.MAX_BODY // 0x10000 + 2))
    status, problem = _exchange(api, _head(AUTHORIZED, "Transfer-Encoding: chunked"), chunks)
    assert (status, problem["type"]) == (413, "urn:surgecast:problem:body-too-large")


def test_the_sender_of_a_large_body_is_told(api: Api) -> None:
    """A plain client that sends all before it reads sees the problem, not a reset connection."""
    request = urllib.request.Request(
        f"{api.url}/v1/forecasts:batch", data=bytes(4 * guard.MAX_BODY), method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)

    with caught.value as error:
        assert error.code == 401


def test_a_slow_body_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.3)

    status, problem = _exchange(api, _head(AUTHORIZED, "Content-Length: 20") + '{"series')

    assert (status, problem["type"]) == (408, "urn:surgecast:problem:body-too-slow")


def test_slow_heads_are_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a first request as of a later one; others are served meanwhile, and afterwards."""
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    address = ("127.0.0.1", int(api.url.rpartition(":")[2]))
    slow = [socket.create_connection(address, timeout=30) for _ in range(40)]
    for number, connection in enumerate(slow):
        if number % 2:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with connection.makefile("rb") as answer:
                assert b"".join(iter(lambda: answer.read(1), b"}")).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /v1/series HTTP/1.1\r\nHost: loc")
    assert api.get("/v1/series")["series"]

    for connection in slow:
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(4_096) == b""
    assert api.get("/v1/series")["series"]


def test_wrong_keys_are_limited_by_address_and_right_ones_are_not(api: Api) -> None:
    """Many wrong keys become a 429; the right key is served from the same address."""
    codes: set[int] = set()
    while 429 not in codes:
        with pytest.raises(urllib.error.HTTPError) as caught:
            api.get("/v1/series", key="not-this-one")
        with caught.value as error:
            codes.add(error.code)
            again = error.headers["Retry-After"]

    assert codes == {401, 429}
    assert int(again) >= 1
    assert api.get("/v1/series")["series"]


def test_requests_of_a_key_are_limited(shop: Shop) -> None:
    """Beyond the setting; another key has a limit of its own."""
    other = "another-key-for-tests"
    limits = {"keys": [KEY, other], "requests_per_second": 1}
    with Api(shop.redis, load_settings(api=limits).api) as api:
        api.get("/v1/series")
        api.get("/v1/series")
        problem = api.problem("/v1/series")
        assert (problem["status"], problem["type"][-17:]) == (429, "too-many-requests")
        assert api.get("/v1/series", key=other)["series"]


def test_no_input_is_an_error_of_the_server(api: Api) -> None:
    """Each of these was a 500 once; each is a 4xx with its reason now."""
    known = "/v1/history/total?from="
    for path in (
        "/v1/series?cursor=%C3%A9",
        "/v1/series?cursor=" + "9" * 5_000,
        "/v1/series?cursor=WyJpZCIsIiIsMCwi",
        f"{known}--5",
        f"{known}{'9' * 5_000}",
        f"{known}%D9%A3",
        f"{known}-9999999999999999",
        "/v1/forecasts/total?horizon=" + "9" * 5_000,
        "/v1/forecasts/total?quantiles=nan",
        "/v1/forecasts/total?quantiles=" + "9," * 500,
        "/v1/forecasts/a%00b",
        "/v1/stream?series=a%00b",
        "/v1/stream?series=,",
        "/v1/accuracy?days=" + "9" * 5_000,
    ):
        assert 400 <= api.problem(path)["status"] < 500, path
    bodies: tuple[Any, ...] = (
        {"series_ids": ["total"], "quantiles": [float("nan")]},
        {"series_ids": ["total"], "quantiles": [True]},
        {"series_ids": ["\ud800"], "horizon": 0},
        {"series_ids": ["total"], "horizon": 10**400},
        {"series_ids": [["["]]},
        [],
        "\ud800",
    )
    for body in bodies:
        assert 400 <= api.problem("/v1/forecasts:batch", body)["status"] < 500, body


def test_unknown_ids_of_any_characters_are_missing(api: Api) -> None:
    """A lone surrogate cannot be sent back as it is; the request is refused or answered."""
    answer = api.get("/v1/forecasts:batch", {"series_ids": ["a\0b", "é", "total"]})
    assert answer["missing"] == ["a\0b", "é"]
    assert api.problem("/v1/forecasts:batch", {"series_ids": ["a\ud800"]})["status"] == 422


def test_deeply_nested_bodies_are_refused(api: Api) -> None:
    """Whatever the parser makes of them, it is no error of the server."""
    for text in ("[" * 100_000, '{"series_ids":' * 50_000):
        size = f"Content-Length: {len(text)}"
        head = _head(AUTHORIZED, "Content-Type: application/json", size)
        status, _ = _exchange(api, head + text)
        assert status in {400, 422}


def test_abuse_does_not_grow_the_server(api: Api) -> None:
    """Ten large bodies at once, of which nothing is kept; another client is answered."""

    def send() -> None:
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            api.open("/v1/forecasts:batch", {"series_ids": ["x" * 20_000_000]}, key="wrong-wrong")

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        assert api.get("/v1/series")["series"]
    for thread in threads:
        thread.join()
