"""Connections to the store, and the secrets that are kept there: pseudonym key, seed of ids."""

import secrets
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from stream.errors import ServiceUnavailable, UsageError
from stream.privacy import Pseudonyms
from stream.settings import NO_STORE, RedisSettings, Settings
from stream.state import keys
from stream.state.redis import translate_store_errors
from stream.topics import CLICKS, ORDERS


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


def connect(settings: RedisSettings) -> redis.Redis:
    """Return a client for readers, not yet connected. Raises ServiceUnavailable without a URL."""
    if settings.url is None:
        raise ServiceUnavailable(NO_STORE)
    password = settings.password.get_secret_value() if settings.password else None
    options: dict[str, Any] = {"password": password} if password else {}
    # a store that hangs is found out within seconds; readers ask again by themselves
    limits: dict[str, Any] = {
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "retry": Retry(NoBackoff(), 1),
    }
    return redis.Redis.from_url(settings.url, **limits, **options)


def load_pseudonyms(settings: Settings, client: redis.Redis) -> Pseudonyms:
    """Pseudonyms under the configured key, else under a random key kept in the store."""
    if settings.privacy.key:
        return Pseudonyms(settings.privacy.key.get_secret_value().encode())
    with translate_store_errors():
        client.set(keys.pseudonym_key(), secrets.token_bytes(32), nx=True)
        key: Any = client.get(keys.pseudonym_key())
    return Pseudonyms(key)


def load_id_seed(settings: Settings, client: redis.Redis) -> int:
    """Seed of the event ids' hashes: random, as old as the store.

    A store that has hashes of an earlier version, without a seed, keeps 0: an event sent before and
    after the upgrade is still counted once.
    """
    with translate_store_errors():
        pipe = client.pipeline(transaction=False)
        for number in range(settings.kafka.partitions):
            pipe.hmget(keys.of(number, "meta"), [f"segments:{t.name}" for t in (ORDERS, CLICKS)])
        hashed = any(one not in (None, b"[]") for found in pipe.execute() for one in found)
        client.set(keys.id_seed(), b"" if hashed else secrets.token_bytes(8), nx=True)
        stored: Any = client.get(keys.id_seed())
    return int.from_bytes(stored, "little")
