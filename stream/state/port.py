"""The state port: what a partition asks of a store, and the plan of one atomic write.

Two stores implement it (`memory.py` for unit tests, `redis.py` for all else) and one contract
test holds both to the same behaviour. A write carries the token its owner got when it acquired the
partition; a later owner's token makes it fail, so a worker that has lost a partition cannot write.
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
    """Everything one flush changes under a partition; applied whole or not at all, and once.

    Order of application: puts, patches, appends, pushes, meta, deletes. `number` tells the plans of
    a process apart: with the owner's token it names the plan, so that one whose answer was lost on
    the way can be applied again without effect.
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
        """Take a partition over; the token that every write must carry from now on."""

    async def apply(self, tag: Tag, token: int, plan: StateWrite) -> None:
        """Apply a plan atomically; the plan applied last is not applied again.

        Raises FencedOut when a later owner holds the partition.
        """

    async def meta(self, tag: Tag) -> dict[str, str]:
        """All meta fields of a partition; empty when it has none."""

    async def blobs(self, tag: Tag, paths: list[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""

    async def items(self, tag: Tag, path: Path) -> list[str]:
        """A whole list."""

    async def fields_of(self, tag: Tag, path: Path) -> dict[str, str]:
        """A whole hash."""


@dataclass(slots=True)
class ReadBlock:
    """What is written with a forecast, besides it."""

    puts: dict[Path, bytes] = field(default_factory=dict)
    fields: dict[Path, dict[str, bytes]] = field(default_factory=dict)
    deletes: list[Path] = field(default_factory=list)
