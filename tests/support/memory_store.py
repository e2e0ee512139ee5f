"""The state store in memory, for unit tests of the code that writes to it."""

from collections import defaultdict

from stream.errors import FencedOut
from stream.state.keys import Tag
from stream.state.port import Path, StateWrite


class MemoryStore:
    """A store that lives as long as the object; a contract test keeps it equal to Redis."""

    def __init__(self) -> None:
        self._meta: dict[Tag, dict[str, str]] = defaultdict(dict)
        self._blobs: dict[tuple[Tag, Path], bytes] = {}
        self._lists: dict[tuple[Tag, Path], list[str]] = defaultdict(list)
        self._hashes: dict[tuple[Tag, Path], dict[str, str]] = defaultdict(dict)

    async def acquire(self, tag: Tag) -> int:
        """Take over a partition. Returns the token that every later write must carry."""
        token = int(self._meta[tag].get("fence", "0")) + 1
        self._meta[tag]["fence"] = str(token)
        return token

    async def apply(self, tag: Tag, token: int, write: StateWrite) -> None:
        """Apply a write atomically; no effect if it is the partition's last one.

        Raises FencedOut when a later owner has acquired the partition.
        """
        if self._meta[tag].get("fence") != str(token):
            raise FencedOut(f"partition {tag} has another owner")
        name = f"{token}:{write.number}"
        if self._meta[tag].get("applied") == name:
            return
        for path, blob in write.puts.items():
            self._blobs[tag, path] = blob
        for path, offset, blob in write.patches:
            old = self._blobs.get((tag, path), b"")
            padded = old.ljust(offset, b"\0")
            self._blobs[tag, path] = padded[:offset] + blob + padded[offset + len(blob) :]
        for path, blob in write.appends:
            self._blobs[tag, path] = self._blobs.get((tag, path), b"") + blob
        for path, items in write.pushes:
            self._lists[tag, path] += items
        for path, values in write.fields.items():
            self._hashes[tag, path] |= values
        self._meta[tag] |= write.meta
        for path in write.deletes:
            self._blobs.pop((tag, path), None)
            self._lists.pop((tag, path), None)
            self._hashes.pop((tag, path), None)
        self._meta[tag]["applied"] = name

    async def meta(self, tag: Tag) -> dict[str, str]:
        """All meta fields of a partition; empty if it has none."""
        return dict(self._meta[tag])

    async def blobs(self, tag: Tag, paths: list[Path]) -> list[bytes | None]:
        """Blobs in one round trip; None where absent."""
        return [self._blobs.get((tag, path)) for path in paths]

    async def items(self, tag: Tag, path: Path) -> list[str]:
        """A whole list; empty where absent."""
        return list(self._lists[tag, path])

    async def fields_of(self, tag: Tag, path: Path) -> dict[str, str]:
        """A whole hash; empty where absent."""
        return dict(self._hashes[tag, path])
