"""The state port in a dict: for unit tests of everything above it."""

from collections import defaultdict

from stream.errors import FencedOut
from stream.state.keys import Tag
from stream.state.port import Path, StateWrite


class MemoryStore:
    """A store that lives as long as the object; same behaviour as Redis, by contract test."""

    def __init__(self) -> None:
        self._meta: dict[Tag, dict[str, str]] = defaultdict(dict)
        self._blobs: dict[tuple[Tag, Path], bytes] = {}
        self._lists: dict[tuple[Tag, Path], list[str]] = defaultdict(list)
        self._hashes: dict[tuple[Tag, Path], dict[str, str]] = defaultdict(dict)

    async def acquire(self, tag: Tag) -> int:
        """Take a partition over; the token that every write must carry from now on."""
        token = int(self._meta[tag].get("fence", "0")) + 1
        self._meta[tag]["fence"] = str(token)
        self._meta[tag].pop("applied", None)
        return token

    async def apply(self, tag: Tag, token: int, plan: StateWrite) -> None:
        """Apply a plan atomically; the plan applied last is not applied again.

        Raises FencedOut when a later owner holds the partition.
        """
        if self._meta[tag].get("fence") != str(token):
            raise FencedOut(f"partition {tag} has another owner")
        if self._meta[tag].get("applied") == str(plan.number):
            return
        self._meta[tag]["applied"] = str(plan.number)
        for path, blob in plan.puts.items():
            self._blobs[tag, path] = blob
        for path, offset, blob in plan.patches:
            old = self._blobs.get((tag, path), b"")
            padded = old.ljust(offset, b"\0")
            self._blobs[tag, path] = padded[:offset] + blob + padded[offset + len(blob) :]
        for path, blob in plan.appends:
            self._blobs[tag, path] = self._blobs.get((tag, path), b"") + blob
        for path, items in plan.pushes:
            self._lists[tag, path] += items
        for path, values in plan.fields.items():
            self._hashes[tag, path] |= values
        self._meta[tag] |= plan.meta
        for path in plan.deletes:
            self._blobs.pop((tag, path), None)

    async def meta(self, tag: Tag) -> dict[str, str]:
        """All meta fields of a partition; empty when it has none."""
        return dict(self._meta[tag])

    async def blobs(self, tag: Tag, paths: list[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""
        return [self._blobs.get((tag, path)) for path in paths]

    async def items(self, tag: Tag, path: Path) -> list[str]:
        """A whole list."""
        return list(self._lists[tag, path])

    async def fields_of(self, tag: Tag, path: Path) -> dict[str, str]:
        """A whole hash."""
        return dict(self._hashes[tag, path])
