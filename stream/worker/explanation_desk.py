"""Answers requests for explanations: of a partition's newest forecasts, between two steps.

A slot that was asked for is explained at once and again after each close for a while, so that a
reader that watches it finds the explanation of the forecast that it shows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from stream.errors import ServiceUnavailable
from stream.state.explanations import StoredExplanation
from stream.state.keys import Tag

log = structlog.get_logger(__name__)

#: How long a slot stays wanted after a request, and how many of a worker may be.
_WANTED_S: Final = 10.0
_MOST: Final = 64
#: Slots explained at once: a close waits for at most so many.
_AT_ONCE: Final = 8


class Explainer(Protocol):
    """Explains forecasts in the serving thread; `ModelServer` implements it."""

    def newest(self, tag: Tag) -> tuple[str, int] | None:
        """Model and origin of a partition's newest forecast; None if it can not be explained."""
        ...

    def explain(self, tag: Tag, slots: Sequence[int]) -> dict[int, StoredExplanation]:
        """Explain some slots of a partition."""
        ...


class Requests(Protocol):
    """Requests and answers in the store; `RedisExplanations` implements it."""

    async def take(self, tags: Sequence[Tag], most: int) -> dict[Tag, list[int]]:
        """Take requested slots. Raises ServiceUnavailable."""
        ...

    async def put(self, tag: Tag, answers: Mapping[int, StoredExplanation]) -> None:
        """Write answers. Raises ServiceUnavailable."""
        ...


class ExplanationDesk:
    """Explains what is asked for; `between_steps` runs a call in the serving thread.

    `tags` are the owned partitions, `clock_s` is any monotonic clock.
    """

    def __init__(
        self,
        explainer: Explainer,
        requests: Requests,
        *,
        tags: Callable[[], list[Tag]],
        between_steps: Callable[..., Awaitable[Any]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._explainer = explainer
        self._requests = requests
        self._tags = tags
        self._between_steps = between_steps
        self._clock_s = clock_s
        self._until_s: dict[tuple[Tag, int], float] = {}
        self._answered: dict[tuple[Tag, int], tuple[str, int]] = {}

    async def run(self, *, every_s: float) -> None:
        """Run until cancelled; an unreachable store is retried."""
        while True:
            try:
                await self.turn()
            except ServiceUnavailable as error:
                log.debug("explanations_wait", reason=str(error))
            await asyncio.sleep(every_s)

    async def turn(self) -> None:
        """Take requests, and answer those whose forecast is new. Raises ServiceUnavailable."""
        await self._take()
        owned = set(self._tags())
        by_tag: dict[Tag, list[int]] = {}
        for tag, slot in self._until_s:
            if tag in owned:
                by_tag.setdefault(tag, []).append(slot)
        for tag, slots in by_tag.items():
            for first in range(0, len(slots), _AT_ONCE):
                await self._answer(tag, slots[first : first + _AT_ONCE])

    async def _take(self) -> None:
        now_s = self._clock_s()
        for key, until_s in list(self._until_s.items()):
            if until_s <= now_s:
                del self._until_s[key]
                self._answered.pop(key, None)
        room = _MOST - len(self._until_s)
        tags = self._tags()
        if room <= 0 or not tags:
            return
        taken = await self._requests.take(tags, max(1, room // len(tags)))
        for tag, slots in taken.items():
            for slot in slots:
                self._until_s[tag, slot] = now_s + _WANTED_S
                self._answered.pop((tag, slot), None)  # whoever asks again has no answer

    async def _answer(self, tag: Tag, slots: list[int]) -> None:
        try:
            newest, answers = await self._between_steps(self._explain, tag, slots)
        except (RuntimeError, MemoryError) as error:  # of the device, or of the kernels
            log.warning("explanation_failed", partition=tag, reason=str(error).partition("\n")[0])
            for slot in slots:
                self._until_s.pop((tag, slot), None)
            return
        if answers:
            await self._requests.put(tag, answers)
        for slot in answers:
            self._answered[tag, slot] = newest

    def _explain(
        self, tag: Tag, slots: list[int]
    ) -> tuple[tuple[str, int] | None, dict[int, StoredExplanation]]:
        newest = self._explainer.newest(tag)
        due = [slot for slot in slots if self._answered.get((tag, slot)) != newest]
        return newest, self._explainer.explain(tag, due) if newest and due else {}
