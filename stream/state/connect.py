"""Connection options of the store, and the pseudonym key that is stored there."""

import secrets
from typing import Any

import redis

from stream.errors import UsageError
from stream.privacy import Pseudonyms
from stream.settings import NO_STORE, Settings
from stream.state import keys
from stream.state.redis import translate_store_errors


def redis_options(settings: Settings) -> tuple[str, dict[str, Any]]:
    """URL and arguments of a Redis client. Raises UsageError if `redis.url` is not set."""
    if not settings.redis.url:
        raise UsageError(NO_STORE)
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,  # a store that hangs counts as unavailable
        "socket_keepalive": True,
    }
    if settings.redis.password:
        options["password"] = settings.redis.password.get_secret_value()
    return settings.redis.url, options


def load_pseudonyms(settings: Settings, client: redis.Redis) -> Pseudonyms:
    """Pseudonyms under the configured key, else under a random key kept in the store."""
    if settings.privacy.key:
        return Pseudonyms(settings.privacy.key.get_secret_value().encode())
    with translate_store_errors():
        client.set(keys.pseudonym_key(), secrets.token_bytes(32), nx=True)
        key: Any = client.get(keys.pseudonym_key())
    return Pseudonyms(key)
