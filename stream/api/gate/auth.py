"""Authentication by `Authorization: Bearer KEY`, compared in constant time.

Without keys the API serves only this machine, and only requests whose Host header names it, so
that a foreign web page cannot read it through a browser (DNS rebinding).
"""

import hmac
from collections.abc import Mapping
from typing import Final

from fastapi.security import HTTPBearer

from stream.api.problems import Problem
from stream.errors import UsageError
from stream.settings import ApiSettings

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
#: Paths served without a key.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})

#: Documents the scheme in the OpenAPI document; `KeyCheck` is what refuses.
bearer = HTTPBearer(auto_error=False, description="One of api.keys")


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


class KeyCheck:
    """Admits requests with one of the keys, or local ones if there are no keys."""

    def __init__(self, settings: ApiSettings) -> None:
        self._keys = [key.get_secret_value().encode() for key in settings.keys]

    def __call__(self, headers: Mapping[str, str]) -> str | None:
        """Return a name of the key of a request, None without keys. Raises Problem.

        >>> KeyCheck(ApiSettings(keys=["a-long-random-key"]))(
        ...     {"authorization": "Bearer a-long-random-key"})
        'key 0'
        """
        if not self._keys:
            if _hostname(headers.get("host", "")) not in LOCAL_HOSTS:
                raise Problem(
                    403, "wrong-host", "api.keys is empty, so only this machine is served"
                )
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode() if scheme.lower() == "bearer" else b""
        # compares every key: the time taken must not reveal which one nearly matches
        equal = [hmac.compare_digest(given, key) for key in self._keys]
        if not any(equal):
            raise Problem(
                401,
                "wrong-key",
                "send Authorization: Bearer KEY with one of api.keys",
                {"WWW-Authenticate": "Bearer"},
            )
        return f"key {equal.index(True)}"


def _hostname(host: str) -> str:
    """Return the host of a Host header, without its port.

    >>> _hostname("[::1]:8000"), _hostname("localhost:80"), _hostname("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
