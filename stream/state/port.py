"""The port of the state store: reads of a partition, and one atomic, fenced write per flush.

`stream/state/redis.py` implements it; a store in memory serves the unit tests, and one contract
test covers both. A write carries the token that its owner received when it acquired the partition.
A later owner's token makes it fail, so a worker that has lost a partition cannot write.
"""

from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from stream.state.keys import Tag

#: Parts of a key below the partition, for example ``("closed", 3_600_000)``.
Path = tuple[str | int, ...]


_numbers = count(1)


@dataclass(slots=True)
class StateWrite:
    """All changes of one flush to a partition; applied as a whole or not at all, and once.

    Order of application: puts, patches, appends, pushes, fields, meta, deletes. `number` is unique
    within a process; owner's token and number identify the write, so a write whose answer was lost
    can be sent again without effect.
    """

    meta: dict[str, str] = field(default_factory=dict)
    puts: dict[Path, bytes] = field(default_factory=dict)
    patches: list[tuple[Path, int, bytes]] = field(default_factory=list)
    appends: list[tuple[Path, bytes]] = field(default_factory=list)
    pushes: list[tuple[Path, list[str]]] = field(default_factory=list)
    fields: dict[Path, dict[str, str]] = field(default_factory=dict)
    deletes: list[Path] = field(default_factory=list)
    number: int = field(default_factory=lambda: next(_numbers))

    def __bool__(self) -> bool:
        return bool(
            self.meta or self.puts or self.patches or self.appends
            or self.pushes or self.fields or self.deletes
        )  # fmt: skip


class StateStore(Protocol):
    """Blobs, lists and hashes of partitions, written in fenced transactions."""

    async def acquire(self, tag: Tag) -> int:
        """Take over a partition. Returns the token that every later write must carry."""

    async def apply(self, tag: Tag, token: int, write: StateWrite) -> None:
        """Apply a write atomically; no effect if it is the partition's last one.

        Raises FencedOut when a later owner has acquired the partition.
        """

    async def meta(self, tag: Tag) -> dict[str, str]:
        """All meta fields of a partition; empty if it has none."""

    async def blobs(self, tag: Tag, paths: list[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""

    async def items(self, tag: Tag, path: Path) -> list[str]:
        """A whole list; empty where absent."""

    async def fields_of(self, tag: Tag, path: Path) -> dict[str, str]:
        """A whole hash; empty where absent."""


@dataclass(slots=True)
class ReadSideWrite:
    """Further changes of a partition that are written with its newest forecast."""

    puts: dict[Path, bytes] = field(default_factory=dict)
    fields: dict[Path, dict[str, bytes]] = field(default_factory=dict)
    deletes: list[Path] = field(default_factory=list)
