"""Types of settings that are addresses, and lists written as ``a,b``.

The text of an error never repeats a value that may hold a password or a key.
"""

import json
import re
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

T = TypeVar("T")

_STORE_SCHEMES: Final = ("redis", "rediss")
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?")
_LAST_PORT: Final = 65_535


def listed(value: Any) -> Any:
    """Return a text ``a,b``, or a JSON list, as a list; anything else unchanged.

    Raises ValueError for a text that begins like a JSON list and is none.

    >>> listed("a, b"), listed('["a,b"]'), listed(""), listed(("a",))
    (['a', 'b'], ['a,b'], [], ('a',))
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            reason = error.args[0]
            raise ValueError(f'it is not a JSON list ({reason}); write a,b or ["a","b"]') from None
    return [part for part in (part.strip() for part in value.split(",")) if part]


def named_or_none(value: Any) -> Any:
    """Return None for an empty text: what a compose file passes for an unset variable.

    >>> named_or_none(" "), named_or_none("redis://r")
    (None, 'redis://r')
    """
    return None if isinstance(value, str) and not value.strip() else value


def store_url(url: str) -> str:
    """Return the URL of a store. Raises ValueError if no client could connect to it.

    >>> store_url("redis://redis:6379/0")
    'redis://redis:6379/0'
    >>> store_url("redis:6379")
    Traceback (most recent call last):
        ...
    ValueError: it has no scheme; write redis://redis:6379
    """
    public = url.rpartition("@")[2]  # without user and password
    if "://" not in url:
        raise ValueError(f"it has no scheme; write redis://{public}")
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return url
    if parts.scheme not in _STORE_SCHEMES:
        raise ValueError(f"{parts.scheme}:// is no store; write redis://, rediss:// or unix://")
    if not parts.hostname or not _has_valid_port(parts):
        raise ValueError(
            "it has no host, or its port is not a number; write redis://HOST:PORT/0, "
            "with special characters of a password as %XX"
        )
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError(f"{parts.path} is not the number of a database; write redis://HOST:PORT/0")
    return url


def servers(value: Any) -> Any:
    """Return bootstrap servers, a text or a list, as one text ``host:port,host:port``.

    Raises ValueError for a URL, or a port that is none.

    >>> servers(["a:9092", "b"]), servers("")
    ('a:9092,b', None)
    >>> servers("kafka://a:9092")
    Traceback (most recent call last):
        ...
    ValueError: 'kafka://a:9092' is not host:port; write a:9092,b:9092, without a scheme
    """
    given = listed(value)
    if given is None or not isinstance(given, list | tuple):
        return given
    for server in given:
        match = _SERVER.fullmatch(str(server))
        if match is None or not 0 < int(match[2] or 1) <= _LAST_PORT:
            shown = str(server).rpartition("@")[2]
            raise ValueError(f"{shown!r} is not host:port; write a:9092,b:9092, without a scheme")
    return ",".join(given) or None


def page_host(host: str) -> str:
    """Return a host whose pages may connect. Raises ValueError for a URL.

    >>> page_host("shop.example:443")
    'shop.example:443'
    """
    if not (host == "*" or _SERVER.fullmatch(host)):
        raise ValueError(f"{host!r} is not a host; write shop.example or shop.example:8443")
    return host


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


#: A tuple that may also be written as ``a,b``.
Listed = Annotated[tuple[T, ...], NoDecode, BeforeValidator(listed)]
#: A text; None if it is empty.
Named = Annotated[str | None, BeforeValidator(named_or_none)]
StoreUrl = Annotated[
    Annotated[str, AfterValidator(store_url)] | None, BeforeValidator(named_or_none)
]
Servers = Annotated[str | None, NoDecode, BeforeValidator(servers)]
PageHost = Annotated[str, AfterValidator(page_host)]
