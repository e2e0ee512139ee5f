"""One behaviour for both state stores: memory and Redis."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis

from stream.errors import FencedOut
from stream.state.memory import MemoryStore
from stream.state.port import StateStore, StateWrite
from stream.state.redis import RedisStore


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[StateStore]:
    """An empty store of each kind."""
    if request.param == "memory":
        yield MemoryStore()
        return
    client = aioredis.Redis.from_url(request.getfixturevalue("valkey_url"))
    await client.flushdb()
    yield RedisStore(client)
    await client.aclose()


async def test_a_plan_is_read_back_as_written(store: StateStore) -> None:
    """Meta, blobs, patches, appends, lists and hashes come back unchanged, binary included."""
    token = await store.acquire(3)
    plan = StateWrite(
        meta={"offset:orders": "12"},
        puts={("closed", 60): b"\x00\xff\r\n"},
        patches=[(("open", 120), 4, b"abcd")],
        appends=[(("ids", "orders", 0), b"12345678"), (("ids", "orders", 0), b"87654321")],
        pushes=[(("series",), ["a", "b"]), (("series",), ["c@Köln"])],
        fields={("categories",): {"a": "Bags"}},
    )
    await store.apply(3, token, plan)

    assert (await store.meta(3))["offset:orders"] == "12"
    assert await store.blobs(3, [("closed", 60), ("open", 120), ("ids", "orders", 0), ("no",)]) == [
        b"\x00\xff\r\n",
        b"\0\0\0\0abcd",
        b"1234567887654321",
        None,
    ]
    assert await store.items(3, ("series",)) == ["a", "b", "c@Köln"]
    assert await store.fields_of(3, ("categories",)) == {"a": "Bags"}


async def test_deletes_come_after_everything_else(store: StateStore) -> None:
    """A bucket that is patched and closed in one plan leaves no open block behind."""
    token = await store.acquire(0)
    await store.apply(
        0,
        token,
        StateWrite(patches=[(("open", 0), 0, b"x")], deletes=[("open", 0), ("visitors", 0)]),
    )

    assert await store.blobs(0, [("open", 0)]) == [None]


async def test_a_later_owner_shuts_the_earlier_one_out(store: StateStore) -> None:
    """A worker that lost a partition cannot write, and changes nothing by trying."""
    old = await store.acquire(1)
    new = await store.acquire(1)
    await store.apply(1, new, StateWrite(meta={"offset:orders": "5"}))

    with pytest.raises(FencedOut):
        await store.apply(
            1, old, StateWrite(meta={"offset:orders": "9"}, appends=[(("ids", "orders", 0), b"x")])
        )
    assert (await store.meta(1))["offset:orders"] == "5"
    assert await store.blobs(1, [("ids", "orders", 0)]) == [None]


async def test_partitions_do_not_share_anything(store: StateStore) -> None:
    """Equal paths of two partitions, and of the roll-ups, are different places."""
    for tag in (0, 1, "r"):
        token = await store.acquire(tag)
        await store.apply(tag, token, StateWrite(puts={("closed", 0): str(tag).encode()}))

    assert [(await store.blobs(tag, [("closed", 0)]))[0] for tag in (0, 1, "r")] == [
        b"0",
        b"1",
        b"r",
    ]


async def test_a_large_plan_is_applied_whole(store: StateStore) -> None:
    """More series than one command may carry, and a block of megabytes."""
    token = await store.acquire(2)
    names = [f"S{i}" for i in range(20_000)]
    block = bytes(range(256)) * 16_384
    fields = dict.fromkeys(names, "x")
    await store.apply(
        2,
        token,
        StateWrite(
            pushes=[(("series",), names)],
            puts={("closed", 0): block},
            fields={("categories",): fields},
        ),
    )

    assert await store.items(2, ("series",)) == names
    assert await store.blobs(2, [("closed", 0)]) == [block]
    assert await store.fields_of(2, ("categories",)) == fields


async def test_a_plan_whose_answer_was_lost_is_applied_once(store: StateStore) -> None:
    """Applying the same plan again changes nothing; another plan with equal content counts."""
    token = await store.acquire(0)
    plan = StateWrite(
        appends=[(("ids", "orders", 0), b"12345678")], pushes=[(("series",), ["a", "b"])]
    )
    await store.apply(0, token, plan)
    await store.apply(0, token, plan)

    assert await store.items(0, ("series",)) == ["a", "b"]
    assert await store.blobs(0, [("ids", "orders", 0)]) == [b"12345678"]

    await store.apply(0, token, StateWrite(pushes=[(("series",), ["c"])]))
    assert await store.items(0, ("series",)) == ["a", "b", "c"]


async def test_plans_of_two_owners_are_never_taken_for_one(store: StateStore) -> None:
    """A plan is named by its owner's token and its number: equal numbers alone mean nothing."""
    await store.apply(
        0, await store.acquire(0), StateWrite(pushes=[(("series",), ["a"])], number=1)
    )
    await store.apply(
        0, await store.acquire(0), StateWrite(pushes=[(("series",), ["b"])], number=1)
    )

    assert await store.items(0, ("series",)) == ["a", "b"]
