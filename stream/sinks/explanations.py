"""Requests for explanations, and the answers, in Redis.

Readers add slots to a set of each partition; the worker that owns it takes them and writes answers
that expire. Every method raises ServiceUnavailable if the store does not answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis.asyncio as aioredis

from stream.state import keys
from stream.state.explanations import KEEP_S, StoredExplanation
from stream.state.keys import Tag
from stream.state.redis import translate_store_errors

#: Readers write slots; whatever else is asked for is not one.
_DIGITS: Final = 10


class RedisExplanations:
    """Takes requests and writes answers; `client` must not decode responses."""

    def __init__(self, client: aioredis.Redis) -> None:
        self._client: Any = client  # redis-py's stubs mix blocking and async results

    async def take(self, tags: Sequence[Tag], most: int) -> dict[Tag, list[int]]:
        """Take up to `most` requested slots of each partition; one round trip."""
        pipe = self._client.pipeline(transaction=False)
        for tag in tags:
            pipe.spop(keys.of(tag, "asked"), most)
        with translate_store_errors():
            found = await pipe.execute()
        return {
            tag: sorted(int(slot) for slot in slots if slot.isdigit() and len(slot) < _DIGITS)
            for tag, slots in zip(tags, found, strict=True)
            if slots
        }  # fmt: skip

    async def put(self, tag: Tag, answers: Mapping[int, StoredExplanation]) -> None:
        """Write answers by slot."""
        pipe = self._client.pipeline(transaction=False)
        for slot, answer in answers.items():
            pipe.set(keys.of(tag, "explained", slot), answer.encode(), ex=KEEP_S)
        with translate_store_errors():
            await pipe.execute()
