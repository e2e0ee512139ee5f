"""Authentication by `Authorization: Bearer KEY`, compared in constant time.

Without keys the API serves only this machine, and only requests whose Host header names it, so
that a foreign web page cannot read it through a browser (DNS rebinding).
"""

import hmac
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from stream.api.problems import Problem
from stream.errors import UsageError
from stream.settings import ApiSettings

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1")

_bearer = HTTPBearer(auto_error=False, description="One of api.keys")


def require_keys_beyond_localhost(settings: ApiSettings) -> None:
    """Raise UsageError if the API would be open to the network without a key.

    >>> require_keys_beyond_localhost(ApiSettings(host="127.0.0.1"))
    >>> require_keys_beyond_localhost(ApiSettings(host="0.0.0.0"))
    Traceback (most recent call last):
    stream.errors.UsageError: api.host is 0.0.0.0 and api.keys is empty: set SURGECAST_API__KEYS...
    """
    if settings.host not in LOCAL_HOSTS and not settings.keys:
        raise UsageError(
            f"api.host is {settings.host} and api.keys is empty: set SURGECAST_API__KEYS to a long "
            "random text (several as a,b), or listen on 127.0.0.1"
        )


def key_check(settings: ApiSettings) -> Callable[..., None]:
    """Return a dependency that admits requests with one of the keys, or local ones without keys."""
    keys = [key.get_secret_value().encode() for key in settings.keys]

    def check(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> None:
        if not keys:
            if request.url.hostname not in LOCAL_HOSTS:
                raise Problem(
                    403, "wrong-host", "api.keys is empty, so only this machine is served"
                )
            return
        token = credentials.credentials.encode() if credentials else b""
        # compares every key: the time taken must not reveal which one nearly matches
        if not sum(hmac.compare_digest(token, key) for key in keys):
            raise Problem(
                401,
                "wrong-key",
                "send Authorization: Bearer KEY with one of api.keys",
                {"WWW-Authenticate": "Bearer"},
            )

    return check
