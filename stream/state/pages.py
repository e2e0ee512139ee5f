"""Cuts blocks with one row per series into pages, and joins them again.

An allocator rounds large strings up, jemalloc by up to a fifth; pages that fill a size class waste
memory in the last page only, for any number of series. Page 0 has the block's own path, page k the
path with k appended. An absent page is a page of zeros.
"""

from collections.abc import Sequence
from typing import Final

from stream.state.port import Path

#: Largest page in bytes: with the string's header it just fits the allocator's class of 80 KiB.
PAGE_BYTES: Final = 80 * 1024 - 64


def rows_per_page(row_bytes: int) -> int:
    """Whole rows of a page; a row larger than a page gets a page of its own.

    >>> rows_per_page(40), rows_per_page(1_000_000)
    (2046, 1)
    """
    return max(1, PAGE_BYTES // row_bytes)


def page_of(path: Path, slot: int, row_bytes: int) -> tuple[Path, int]:
    """Path of the page of a slot, and the byte offset of its row.

    >>> page_of(("closed", 60), 2_050, 40)
    (('closed', 60, 1), 160)
    """
    page, row = divmod(slot, rows_per_page(row_bytes))
    return _page(path, page), row * row_bytes


def paths(path: Path, rows: int, row_bytes: int) -> list[Path]:
    """Paths of the pages of a block of `rows` rows, in order; at least one.

    >>> paths(("closed", 60), 4_100, 40)
    [('closed', 60), ('closed', 60, 1), ('closed', 60, 2)]
    """
    return [_page(path, page) for page in range(max(1, -(-rows // rows_per_page(row_bytes))))]


def cut(path: Path, block: bytes, row_bytes: int) -> dict[Path, bytes]:
    """Pages of a block, by path; none if the block is empty."""
    size = rows_per_page(row_bytes) * row_bytes
    whole = memoryview(block)
    return {
        _page(path, page): bytes(whole[at : at + size])
        for page, at in enumerate(range(0, len(block), size))
    }


def join(pages: Sequence[bytes | None], row_bytes: int) -> bytes:
    r"""Join pages to a block; absent pages before the last present one become zeros.

    >>> join([None, b"b"], 1)[-2:], join([None, None], 1)
    (b'\x00b', b'')
    """
    size = rows_per_page(row_bytes) * row_bytes
    stored = max((n for n, page in enumerate(pages, start=1) if page), default=0)
    if not stored:
        return b""
    *whole, last = [page or b"" for page in pages[:stored]]
    return b"".join([*(page.ljust(size, b"\0") for page in whole), last]) if whole else last


def _page(path: Path, page: int) -> Path:
    return (*path, page) if page else path
