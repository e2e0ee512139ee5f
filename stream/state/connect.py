"""How a role reaches the store, and the key of the pseudonyms that lies in it."""

import secrets
from typing import Any

import redis

from stream.errors import UsageError
from stream.privacy import Pseudonyms
from stream.settings import Settings
from stream.state import keys
from stream.state.redis import store_answers


def redis_options(settings: Settings) -> tuple[str, dict[str, Any]]:
    """URL and arguments of a Redis client. Raises UsageError when no store is named."""
    if not settings.redis.url:
        raise UsageError("no store: set SURGECAST_REDIS__URL, or run everything with surgecast up")
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,  # a store that hangs is one that is away
        "socket_keepalive": True,
    }
    if settings.redis.password:
        options["password"] = settings.redis.password.get_secret_value()
    return settings.redis.url, options


def pseudonyms(settings: Settings, client: redis.Redis) -> Pseudonyms:
    """Pseudonyms under the configured key, or under a random one kept in the store."""
    if settings.privacy.key:
        return Pseudonyms(settings.privacy.key.get_secret_value().encode())
    with store_answers():
        client.set(keys.pseudonym_key(), secrets.token_bytes(32), nx=True)
        key: Any = client.get(keys.pseudonym_key())
    return Pseudonyms(key)
