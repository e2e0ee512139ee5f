"""Atomic files of the registry, on a local disk or behind any fsspec URL.

On a local disk a file or folder is written under a temporary name, flushed to the disk and renamed.
In an object store each object is atomic by itself; a folder exists once its `last` file, which is
written last, exists.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import fsspec

from model.durations import HOUR_MS
from stream.clock import wall_clock_ms

#: Age at which temporary files of killed writers are removed.
_STALE_MS: Final = HOUR_MS


class RegistryFiles:
    """Files under one root, by their names relative to it. Raises OSError if the storage fails."""

    def __init__(self, path: str) -> None:
        filesystem, root = fsspec.core.url_to_fs(path)
        self._fs: Any = filesystem
        self._root: str = root.rstrip("/")
        protocol = filesystem.protocol
        self._local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._at(name)))

    def exists(self, name: str) -> bool:
        """True if the file exists."""
        return bool(self._fs.exists(self._at(name)))

    def names(self, folder: str) -> list[str]:
        """Names in a folder without temporary ones; empty if the folder is missing."""
        self._fs.invalidate_cache()
        try:
            paths = self._fs.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        found = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]
        return sorted(name for name in found if not name.startswith("."))

    def replace(self, name: str, payload: bytes) -> None:
        """Replace a file."""
        if not self._local:
            self._fs.pipe_file(self._at(name), payload)
            return
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
        try:
            _write_through(temporary, payload)
            temporary.rename(target)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise

    def append(self, name: str, line: bytes) -> None:
        """Add a line to a file."""
        if not self._local:  # object stores cannot append
            before = self.read(name) if self.exists(name) else b""
            self._fs.pipe_file(self._at(name), before + line + b"\n")
            return
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            file.write(line + b"\n")

    def put_folder(self, folder: str, files: Mapping[str, bytes], *, last: str) -> None:
        """Write a new folder with all its files at once. An existing folder stays unchanged."""
        target = self._at(folder)
        if not self._local:
            for name in (*(name for name in files if name != last), last):
                self._fs.pipe_file(f"{target}/{name}", files[name])
            return
        final = Path(target)
        temporary = final.with_name(f".{final.name}.{uuid4().hex[:8]}")
        try:
            temporary.mkdir(parents=True)
            for name, payload in files.items():
                _write_through(temporary / name, payload)
            if not (final / last).exists():
                shutil.rmtree(final, ignore_errors=True)  # incomplete: no `last` file
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove_folder(self, folder: str, *, first: str) -> None:
        """Remove a folder, its file `first` before the others: without it readers see no folder."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(f"{folder}/{first}"))
        with suppress(FileNotFoundError):
            self._fs.rm(self._at(folder), recursive=True)

    def sweep(self, folder: str) -> None:
        """Remove temporary files of killed writers from a folder, after an hour."""
        if not self._local:
            return
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._at(folder)):
                old = wall_clock_ms() - entry.stat().st_mtime * 1_000 > _STALE_MS
                if entry.name.startswith(".") and old:
                    shutil.rmtree(entry.path, ignore_errors=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _write_through(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
