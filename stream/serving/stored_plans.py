"""Reads the plans of all partitions from Redis, as model inputs.

Every worker sees every plan, from whichever partition it was read. A call reads one short field per
partition; a table is fetched when it has changed, and the categories of a partition's SKUs when a
category has plans and further catalog records were consumed. Synchronous, for the serving thread,
the warm-up thread and the trainer.
"""

from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import redis

from model.inputs.plans import Plans as PlanBlock
from stream.decoding.plans import Plan
from stream.partition.plan_table import PlanTable
from stream.serving.plan_blocks import PlanScopes, plan_block
from stream.state import keys
from stream.state.keys import ROLLUPS, Tag
from stream.topics import CATALOG


class StoredPlans:
    """A `PlanReader` over the store; safe to call from several threads."""

    def __init__(self, client: redis.Redis, partitions: int, *, bucket_ms: int) -> None:
        self._client = client
        self._partitions = partitions
        self._bucket_ms = bucket_ms
        self._lock = Lock()
        self._versions: list[bytes | None] = [None] * partitions
        self._plans: list[list[Plan]] = [[] for _ in range(partitions)]
        self._scopes: dict[Tag, PlanScopes] = {}
        self._categories: dict[Tag, tuple[bytes | None, dict[str, str]]] = {}

    def __call__(
        self, tag: Tag, series: Sequence[str], start_ms: int, buckets: int
    ) -> PlanBlock | None:
        """Plans of a partition's series; None if no series has one."""
        with self._lock:
            plans = self._overlapping(start_ms, start_ms + buckets * self._bucket_ms)
            if not plans:
                return None
            scopes = self._scopes.get(tag)
            if scopes is None or not scopes.extends(series):
                scopes = self._scopes[tag] = PlanScopes()  # of another store, or of a new partition
            scopes.grow(series)
            categories = self._categories_of([] if tag == ROLLUPS else [tag], plans)
            return self._block(plans, scopes, categories, start_ms, buckets)

    def of_any(self, series: Sequence[str], start_ms: int, buckets: int) -> PlanBlock | None:
        """Plans of series of any partitions, and of roll-ups."""
        with self._lock:
            plans = self._overlapping(start_ms, start_ms + buckets * self._bucket_ms)
            scopes = PlanScopes()
            scopes.grow(series)
            categories = self._categories_of(range(self._partitions), plans)
            return self._block(plans, scopes, categories, start_ms, buckets)

    def _block(
        self,
        plans: list[Plan],
        scopes: PlanScopes,
        categories: Mapping[str, str],
        start_ms: int,
        buckets: int,
    ) -> PlanBlock | None:
        return plan_block(
            plans, scopes, categories,
            start_ms=start_ms, bucket_ms=self._bucket_ms, buckets=buckets,
        )  # fmt: skip

    def _overlapping(self, start_ms: int, end_ms: int) -> list[Plan]:
        self._refresh()
        return [
            plan
            for table in self._plans
            for plan in table
            if plan.start_ms < end_ms and plan.end_ms > start_ms
        ]

    def _refresh(self) -> None:
        versions = self._fields("plans", range(self._partitions))
        for number, version in enumerate(versions):
            if version != self._versions[number]:
                packed: Any = self._client.get(keys.of(number, "plans"))
                self._plans[number] = PlanTable.read(packed or b"")
                self._versions[number] = version

    def _categories_of(self, tags: Iterable[Tag], plans: list[Plan]) -> dict[str, str]:
        """Category of each SKU of some partitions; empty if no plan is for a category."""
        if not any(plan.category is not None for plan in plans):
            return {}
        wanted = list(tags)
        found: dict[str, str] = {}
        offsets = self._fields(f"offset:{CATALOG.name}", wanted)
        for tag, offset in zip(wanted, offsets, strict=True):
            known = self._categories.get(tag)
            if known is None or known[0] != offset:
                stored: Any = self._client.hgetall(keys.of(tag, "categories"))
                named = {sku.decode(): name.decode() for sku, name in stored.items()}
                known = self._categories[tag] = offset, named
            found |= known[1]
        return found

    def _fields(self, name: str, tags: Iterable[Tag]) -> list[bytes | None]:
        """One meta field of each of some partitions."""
        with self._client.pipeline(transaction=False) as trip:
            for tag in tags:
                trip.hget(keys.of(tag, "meta"), name)
            return list(trip.execute())
