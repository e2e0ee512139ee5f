"""The state store in Redis or Valkey: one script call per flush, checked against the owner's token.

Values, offsets and the fence of a partition change in one atomic step, so each event takes effect
exactly once. All keys of a partition share a hash tag, so the step is atomic on a cluster too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stream.errors import FencedOut, ServiceUnavailable
from stream.state import keys
from stream.state.keys import Tag
from stream.state.port import Path, StateWrite

_SCRIPT = files("stream.state").joinpath("lua/fenced_write.lua").read_text()
#: Arguments of one command at most; Lua's unpack is limited to about 8,000.
_PUSH_CHUNK = 2_000


@contextmanager
def translate_store_errors() -> Iterator[None]:
    """Raise ServiceUnavailable for the Redis errors that waiting can cure."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise ServiceUnavailable(f"the store did not answer: {error}") from error
    except (OutOfMemoryError, ReadOnlyError) as error:  # until memory is freed, a primary elected
        raise ServiceUnavailable(f"the store refused the write: {error}") from error
    except ResponseError:
        raise
    except RedisError as error:
        raise ServiceUnavailable(f"the store failed: {error}") from error


class RedisStore:
    """The store of a deployment. `client` must not decode responses."""

    def __init__(self, client: aioredis.Redis) -> None:
        self._client = client
        self._script = client.register_script(_SCRIPT)

    async def acquire(self, tag: Tag) -> int:
        """Take over a partition. Returns the token that every later write must carry."""
        return int(await self._call(self._client.hincrby(keys.of(tag, "meta"), "fence", 1)))

    async def apply(self, tag: Tag, token: int, write: StateWrite) -> None:
        """Apply a write atomically; no effect if it is the partition's last one.

        Raises FencedOut when a later owner has acquired the partition.
        """
        touched: dict[str, None] = {keys.of(tag, "meta"): None}
        words: list[Any] = [token, f"{token}:{write.number}"]

        def command(name: str, path: Path, *arguments: Any) -> None:
            key = keys.of(tag, *path)
            touched[key] = None
            words.extend((2 + len(arguments), name, key, *arguments))

        for path, blob in write.puts.items():
            command("SET", path, blob)
        for path, offset, blob in write.patches:
            command("SETRANGE", path, offset, blob)
        for path, blob in write.appends:
            command("APPEND", path, blob)
        for path, items in write.pushes:
            for start in range(0, len(items), _PUSH_CHUNK):
                command("RPUSH", path, *items[start : start + _PUSH_CHUNK])
        for path, values in write.fields.items():
            pairs = list(values.items())
            for start in range(0, len(pairs), _PUSH_CHUNK):
                chunk = pairs[start : start + _PUSH_CHUNK]
                command("HSET", path, *(word for pair in chunk for word in pair))
        if write.meta:
            command("HSET", ("meta",), *(word for pair in write.meta.items() for word in pair))
        for path in write.deletes:
            command("DEL", path)
        try:
            await self._call(self._script(keys=list(touched), args=words))
        except ResponseError as error:
            if "FENCED" in str(error):
                raise FencedOut(f"partition {tag} has another owner") from None
            raise

    async def meta(self, tag: Tag) -> dict[str, str]:
        """All meta fields of a partition; empty if it has none."""
        return await self.fields_of(tag, ("meta",))

    async def blobs(self, tag: Tag, paths: list[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""
        if not paths:
            return []
        found = await self._call(self._client.mget([keys.of(tag, *path) for path in paths]))
        return cast("list[bytes | None]", found)

    async def items(self, tag: Tag, path: Path) -> list[str]:
        """A whole list; empty where absent."""
        return [
            item.decode()
            for item in await self._call(self._client.lrange(keys.of(tag, *path), 0, -1))
        ]

    async def fields_of(self, tag: Tag, path: Path) -> dict[str, str]:
        """A whole hash; empty where absent."""
        found = await self._call(self._client.hgetall(keys.of(tag, *path)))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def _call(self, pending: Any) -> Any:
        with translate_store_errors():
            return await pending
