"""The outermost layer of the API: refuses requests before any of their bodies is read or parsed.

In this order: authentication, rates, size and time. A refused request costs its head alone. What a
body may hold is decided by the schemas; the time for a request's head by `connections.py`.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream.api.gate.allowance import Allowance
from stream.api.gate.auth import OPEN_PATHS, KeyCheck
from stream.api.problems import Problem, problem_response
from stream.settings import ApiSettings

#: Greatest body: 1,000 series ids of the greatest length, beyond ASCII.
MAX_BODY: Final = 2 * 2**20
#: Time for a body to arrive, and for a client to accept a part of an answer.
BODY_S: Final = 10.0
ACCEPT_S: Final = 30.0
#: How much of the body of a refused request is read and dropped, so that its client sees why.
LINGER_BYTES: Final = 16 * 2**20
LINGER_S: Final = 2.0
#: Wrong keys of an address: a second on average, and at once.
WRONG_KEYS: Final = (5.0, 20.0)


class Guard:
    """ASGI middleware with the limits of all requests."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._check = KeyCheck(settings)
        rate = float(settings.requests_per_second)
        self._requests = Allowance(rate=rate, burst=2 * rate)
        self._wrong_keys = Allowance(rate=WRONG_KEYS[0], burst=WRONG_KEYS[1])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an admitted request on; answer any other."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
            body = await _body(scope, receive)
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        with suppress(_SlowClient):  # the server closes a connection with an incomplete answer
            await self._app(scope, _replayed(body, receive), _timed(send))

    def _admit(self, scope: Scope) -> None:
        """Raise Problem for a wrong key, a foreign host, or too many requests."""
        address = (scope.get("client") or ("",))[0]
        now_s = time.monotonic()
        client = address
        if scope["path"] not in OPEN_PATHS:
            try:
                client = self._check(Headers(scope=scope)) or address
            except Problem:
                wait_s = self._wrong_keys.wait_s(address, now_s=now_s)
                if wait_s:
                    raise _too_many("wrong keys", wait_s) from None
                raise
        wait_s = self._requests.wait_s(client, now_s=now_s)
        if wait_s:
            raise _too_many("requests", wait_s)


class _SlowClient(Exception):
    """A client took too long to accept its answer."""


def _too_many(what: str, wait_s: float) -> Problem:
    seconds = math.ceil(wait_s)
    return Problem(
        429, f"too-many-{what.replace(' ', '-')}", f"too many {what}; try again in {seconds} s",
        {"Retry-After": str(seconds)},
    )  # fmt: skip


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Read the body of a request. Raises Problem if it is too large or too slow."""
    headers = Headers(scope=scope)
    declared = headers.get("content-length")
    if declared is None and "transfer-encoding" not in headers:
        return b""
    if declared is not None and int(declared) > MAX_BODY:  # the server has checked the digits
        raise _too_large(f"{int(declared):,} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    raise _too_large("the body")
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise Problem(408, "body-too-slow", f"no whole body within {BODY_S:.0f} s") from None


def _too_large(what: str) -> Problem:
    return Problem(413, "body-too-large", f"{what} exceeds the limit of {MAX_BODY:,} bytes")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that passes the body first, then what the server reports."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _timed(send: Send) -> Send:
    """Return a `send` that raises if the client does not accept a part of the answer in time."""

    async def timed(message: Message) -> None:
        try:
            async with asyncio.timeout(ACCEPT_S):
                await send(message)
        except TimeoutError:
            raise _SlowClient from None

    return timed


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a problem and close; what is left of a body is dropped, for a while.

    Closing at once would reset the connection, and the client might never see why.
    """
    headers: Mapping[str, str] = {**(problem.headers or {}), "Connection": "close"}
    response = problem_response(scope["path"], problem, headers)
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    sized = Headers(scope=scope)
    if sized.get("content-length", "0") != "0" or "transfer-encoding" in sized:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                dropped = 0
                while dropped < LINGER_BYTES:
                    message = await receive()
                    dropped += len(message.get("body", b""))
                    if not message.get("more_body"):
                        break
    await send({"type": "http.response.body", "body": b"", "more_body": False})
