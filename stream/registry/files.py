"""Files of the registry: written whole or not at all, on a local disk and behind any fsspec URL.

On a local disk a file or folder is written aside, flushed to the disk and renamed. Elsewhere an
object appears whole by itself, and a folder's `last` file, written last, is what makes it exist.
"""

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import fsspec

#: What a writer that was killed left aside is removed after this time.
_LEFT_ASIDE_S: Final = 3_600


class RegistryFiles:
    """Files under one root, by their names below it. Raises OSError where storage fails."""

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
        """Whether there is such a file."""
        return bool(self._fs.exists(self._at(name)))

    def names(self, folder: str) -> list[str]:
        """Names in a folder, those left aside excepted; none where it is missing."""
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
        aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
        try:
            _write_through(aside, payload)
            aside.rename(target)
        except OSError:
            with suppress(OSError):
                aside.unlink()
            raise

    def append(self, name: str, line: bytes) -> None:
        """Add a line to a file."""
        if not self._local:  # object stores know no appending
            before = self.read(name) if self.exists(name) else b""
            self._fs.pipe_file(self._at(name), before + line + b"\n")
            return
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            file.write(line + b"\n")

    def put_folder(self, folder: str, files: Mapping[str, bytes], *, last: str) -> None:
        """Write a new folder; it appears with all its files. One that exists is left alone."""
        target = self._at(folder)
        if not self._local:
            for name in (*(name for name in files if name != last), last):
                self._fs.pipe_file(f"{target}/{name}", files[name])
            return
        place = Path(target)
        aside = place.with_name(f".{place.name}.{uuid4().hex[:8]}")
        try:
            aside.mkdir(parents=True)
            for name, payload in files.items():
                _write_through(aside / name, payload)
            if not (place / last).exists():
                shutil.rmtree(place, ignore_errors=True)  # damaged: without its last file
                aside.rename(place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def remove_folder(self, folder: str, *, first: str) -> None:
        """Remove a folder; without its file `first` it no longer exists for a reader."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(f"{folder}/{first}"))
        with suppress(FileNotFoundError):
            self._fs.rm(self._at(folder), recursive=True)

    def sweep(self, folder: str) -> None:
        """Remove what killed writers left aside in a folder, an hour later."""
        if not self._local:
            return
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._at(folder)):
                old = time.time() - entry.stat().st_mtime > _LEFT_ASIDE_S
                if entry.name.startswith(".") and old:
                    shutil.rmtree(entry.path, ignore_errors=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _write_through(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
