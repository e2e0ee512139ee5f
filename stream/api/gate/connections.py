"""The HTTP server's limits on connections: their number, and the time for a request's head.

Uvicorn closes idle connections between two requests, but waits for ever for the rest of a head.
"""

import asyncio
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Open connections at most; further ones are answered 503.
MAX_CONNECTIONS: Final = 1_000
#: Time for a request's head to arrive, from the first byte or from the connection.
HEAD_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 3


def server_config(app: Any, *, host: str, port: int) -> uvicorn.Config:
    """Return the configuration of a server of `app` with these limits."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PromptHeads,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )


class PromptHeads(H11Protocol):
    """An HTTP/1.1 connection that is closed when a request's head takes longer than `HEAD_S`."""

    _deadline: asyncio.TimerHandle | None = None

    # uvicorn's protocol narrows asyncio's argument in the same way
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def handle_events(self) -> None:
        """Handle what arrived; wait for the rest if it is a part of a head."""
        super().handle_events()
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            self._expect_no_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._expect_no_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.abort)

    def _expect_no_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
