"""The contract of the state store, for both implementations: memory and Redis."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis

from stream.errors import FencedOut
from stream.state.port import Path, StateStore, StateWrite
from stream.state.redis import RedisStore
from tests.support.memory_store import MemoryStore


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


async def test_a_write_is_read_back_unchanged(store: StateStore) -> None:
    """Meta, blobs, patches, appends, lists and hashes come back unchanged, binary included."""
    token = await store.acquire(3)
    write = StateWrite(
        meta={"offset:orders": "12"},
        puts={("closed", 60): b"\x00\xff\r\n"},
        patches=[(("open", 120), 4, b"abcd")],
        appends=[(("ids", "orders", 0), b"12345678"), (("ids", "orders", 0), b"87654321")],
        pushes=[(("series",), ["a", "b"]), (("series",), ["c@Köln"])],
        fields={("categories",): {"a": "Bags"}},
    )
    await store.apply(3, token, write)

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
    """A bucket that is patched and closed in one write leaves no open block behind."""
    token = await store.acquire(0)
    await store.apply(
        0,
        token,
        StateWrite(patches=[(("open", 0), 0, b"x")], deletes=[("open", 0), ("visitors", 0)]),
    )

    assert await store.blobs(0, [("open", 0)]) == [None]


async def test_a_later_owner_fences_out_the_earlier_one(store: StateStore) -> None:
    """A worker that has lost a partition cannot write; its attempt changes nothing."""
    old = await store.acquire(1)
    new = await store.acquire(1)
    await store.apply(1, new, StateWrite(meta={"offset:orders": "5"}))

    with pytest.raises(FencedOut):
        await store.apply(
            1, old, StateWrite(meta={"offset:orders": "9"}, appends=[(("ids", "orders", 0), b"x")])
        )
    assert (await store.meta(1))["offset:orders"] == "5"
    assert await store.blobs(1, [("ids", "orders", 0)]) == [None]


async def test_partitions_share_no_keys(store: StateStore) -> None:
    """Equal paths of two partitions, and of the roll-ups, are different keys."""
    for tag in (0, 1, "r"):
        token = await store.acquire(tag)
        await store.apply(tag, token, StateWrite(puts={("closed", 0): str(tag).encode()}))

    assert [(await store.blobs(tag, [("closed", 0)]))[0] for tag in (0, 1, "r")] == [
        b"0",
        b"1",
        b"r",
    ]


async def test_a_large_write_is_applied_as_a_whole(store: StateStore) -> None:
    """More series than one command can carry, and a block of megabytes."""
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


async def test_a_write_whose_answer_was_lost_is_applied_once(store: StateStore) -> None:
    """Applying the same write again changes nothing; another write with equal content counts."""
    token = await store.acquire(0)
    write = StateWrite(
        appends=[(("ids", "orders", 0), b"12345678")], pushes=[(("series",), ["a", "b"])]
    )
    await store.apply(0, token, write)
    await store.apply(0, token, write)

    assert await store.items(0, ("series",)) == ["a", "b"]
    assert await store.blobs(0, [("ids", "orders", 0)]) == [b"12345678"]

    await store.apply(0, token, StateWrite(pushes=[(("series",), ["c"])]))
    assert await store.items(0, ("series",)) == ["a", "b", "c"]


async def test_writes_of_two_owners_are_never_confused(store: StateStore) -> None:
    """Token and number identify a write: equal numbers of two owners are two writes."""
    await store.apply(
        0, await store.acquire(0), StateWrite(pushes=[(("series",), ["a"])], number=1)
    )
    await store.apply(
        0, await store.acquire(0), StateWrite(pushes=[(("series",), ["b"])], number=1)
    )

    assert await store.items(0, ("series",)) == ["a", "b"]


async def test_what_was_never_written_is_empty(store: StateStore) -> None:
    """No method fails for a partition or a path that does not exist."""
    assert await store.meta(7) == {}
    assert await store.blobs(7, []) == []
    assert await store.blobs(7, [("closed", 0)]) == [None]
    assert await store.items(7, ("series",)) == []
    assert await store.fields_of(7, ("categories",)) == {}


async def test_every_kind_of_key_can_be_deleted(store: StateStore) -> None:
    """Blobs, lists and hashes; a delete of an absent path is no error."""
    token = await store.acquire(0)
    await store.apply(
        0,
        token,
        StateWrite(
            puts={("closed", 0): b"x"},
            pushes=[(("series",), ["a"])],
            fields={("categories",): {"a": "Bags"}},
        ),
    )
    deletes: list[Path] = [("closed", 0), ("series",), ("categories",), ("none",)]
    await store.apply(0, token, StateWrite(deletes=deletes))

    assert await store.blobs(0, [("closed", 0)]) == [None]
    assert await store.items(0, ("series",)) == []
    assert await store.fields_of(0, ("categories",)) == {}


async def test_the_parts_of_a_write_apply_in_the_documented_order(store: StateStore) -> None:
    """A put, then a patch inside it, then an append to it; puts and fields replace old values."""
    token = await store.acquire(0)
    old = StateWrite(
        puts={("open", 0): b"older and longer"},
        fields={("categories",): {"a": "Bags", "b": "Hats"}},
    )
    await store.apply(0, token, old)
    write = StateWrite(
        appends=[(("open", 0), b"!")],
        patches=[(("open", 0), 1, b"XY")],
        puts={("open", 0): b"abcd"},
        fields={("categories",): {"a": "Shoes"}},
    )
    await store.apply(0, token, write)

    assert await store.blobs(0, [("open", 0)]) == [b"aXYd!"]
    assert await store.fields_of(0, ("categories",)) == {"a": "Shoes", "b": "Hats"}


async def test_a_partition_nobody_has_acquired_takes_no_writes(store: StateStore) -> None:
    with pytest.raises(FencedOut):
        await store.apply(0, 1, StateWrite(meta={"offset:orders": "9"}))

    assert await store.meta(0) == {}


async def test_meta_outlives_its_owner(store: StateStore) -> None:
    """A successor reads the offsets of the owner before it, and updates single fields."""
    first = await store.acquire(0)
    await store.apply(0, first, StateWrite(meta={"offset:orders": "5", "offset:clicks": "7"}))
    second = await store.acquire(0)
    await store.apply(0, second, StateWrite(meta={"offset:orders": "6"}))

    meta = await store.meta(0)
    assert second > first
    assert (meta["offset:orders"], meta["offset:clicks"]) == ("6", "7")


def test_an_empty_write_is_falsy() -> None:
    assert not StateWrite()
    assert StateWrite(deletes=[("open", 0)])
