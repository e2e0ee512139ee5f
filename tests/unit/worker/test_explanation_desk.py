"""What is asked for is explained once for each forecast, and no longer than it is wanted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from stream.errors import ServiceUnavailable
from stream.state.explanations import StoredExplanation
from stream.state.keys import Tag
from stream.worker.explanation_desk import ExplanationDesk


class Shop:
    """Explainer, requests and clock in one; `made` records what was explained."""

    def __init__(self) -> None:
        self.asked: dict[Tag, list[int]] = {}
        self.owned: list[Tag] = [0, 1]
        self.origin_ms: int | None = 60
        self.model_id = "n"
        self.now_s = 0.0
        self.made: list[tuple[Tag, list[int]]] = []
        self.stored: dict[tuple[Tag, int], StoredExplanation] = {}
        self.fault: Exception | None = None
        self.away = False
        self.desk = ExplanationDesk(
            self,
            self,
            tags=lambda: self.owned,
            between_steps=self.between_steps,
            clock_s=lambda: self.now_s,
        )

    async def between_steps(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    def newest(self, tag: Tag) -> tuple[str, int] | None:
        return None if self.origin_ms is None else (self.model_id, self.origin_ms)

    def explain(self, tag: Tag, slots: Sequence[int]) -> dict[int, StoredExplanation]:
        if self.fault is not None:
            raise self.fault
        self.made.append((tag, list(slots)))
        return {slot: StoredExplanation(self.origin_ms or 0, self.model_id) for slot in slots}

    async def take(self, tags: Sequence[Tag], most: int) -> dict[Tag, list[int]]:
        taken, self.asked = {tag: self.asked[tag] for tag in tags if tag in self.asked}, {}
        return {tag: slots[:most] for tag, slots in taken.items()}

    async def put(self, tag: Tag, answers: Mapping[int, StoredExplanation]) -> None:
        if self.away:
            raise ServiceUnavailable("the store does not answer")
        self.stored |= {(tag, slot): answer for slot, answer in answers.items()}

    async def turn(self, tag: Tag | None = None, *slots: int) -> list[tuple[Tag, list[int]]]:
        """What one turn explains, after a request for some slots."""
        if tag is not None:
            self.asked = {tag: list(slots)}
        self.made.clear()
        await self.desk.turn()
        return list(self.made)


async def test_a_slot_is_explained_once_for_each_forecast() -> None:
    """Again after a close or a swap, and again when a reader has lost the answer."""
    shop = Shop()

    assert await shop.turn(0, 3, 5) == [(0, [3, 5])]
    assert await shop.turn() == []
    shop.origin_ms = 120
    assert await shop.turn() == [(0, [3, 5])]
    shop.model_id = "m"
    assert await shop.turn() == [(0, [3, 5])]
    assert await shop.turn(0, 5) == [(0, [5])]
    assert shop.stored[0, 5] == StoredExplanation(120, "m")


async def test_what_nobody_asks_for_any_more_is_explained_no_more() -> None:
    shop = Shop()
    await shop.turn(0, 3)
    shop.now_s, shop.origin_ms = 11.0, 120

    assert await shop.turn() == []


async def test_a_request_before_the_first_step_waits_for_it() -> None:
    shop = Shop()
    shop.origin_ms = None
    assert await shop.turn(1, 4) == []
    shop.origin_ms = 60

    assert await shop.turn() == [(1, [4])]


async def test_a_partition_that_moved_away_is_left_to_its_next_owner() -> None:
    shop = Shop()
    await shop.turn(1, 4)
    shop.owned, shop.origin_ms = [0], 120

    assert await shop.turn() == []


async def test_an_answer_that_was_not_stored_is_made_again() -> None:
    shop = Shop()
    shop.away = True
    with pytest.raises(ServiceUnavailable):
        await shop.turn(0, 3)
    shop.away = False

    assert await shop.turn() == [(0, [3])]
    assert (0, 3) in shop.stored


async def test_a_failing_explanation_is_given_up_and_harms_no_other() -> None:
    shop = Shop()
    shop.fault = RuntimeError("CUDA error")
    assert await shop.turn(0, 3) == []
    shop.fault = None

    assert await shop.turn() == []
    assert await shop.turn(0, 3) == [(0, [3])]


async def test_a_flood_of_requests_waits_in_the_store() -> None:
    """At most 64 slots are wanted at a time, and eight explained between two steps."""
    shop = Shop()
    shop.owned = [0]
    made = await shop.turn(0, *range(200))

    assert [len(slots) for _, slots in made] == [8] * 8
    assert await shop.turn(0, *range(200, 300)) == []
