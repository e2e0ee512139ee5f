"""Blocks of rows, cut into pages: how everything that has a row a series lies in the store.

An allocator rounds a large string up, jemalloc by as much as a fifth; pages of one size that fits
lose nothing but in the last one, however many series a partition has. Page 0 lies under the block's
own path, page k under the path with k appended. An absent page is a page of zeros.
"""

from collections.abc import Sequence
from typing import Final

from stream.state.port import Path

#: Bytes of a page at most: with the string's header just within the allocator's class of 80 KiB.
PAGE_BYTES: Final = 80 * 1024 - 64


def rows_a_page(row_bytes: int) -> int:
    """Whole rows a page holds; a row larger than a page has one to itself.

    >>> rows_a_page(40), rows_a_page(1_000_000)
    (2046, 1)
    """
    return max(1, PAGE_BYTES // row_bytes)


def page_of(path: Path, slot: int, row_bytes: int) -> tuple[Path, int]:
    """Path of the page that holds a slot, and the byte its row begins at.

    >>> page_of(("closed", 60), 2_050, 40)
    (('closed', 60, 1), 160)
    """
    page, row = divmod(slot, rows_a_page(row_bytes))
    return _page(path, page), row * row_bytes


def paths(path: Path, rows: int, row_bytes: int) -> list[Path]:
    """Paths of the pages of a block of so many rows, in order; one at least.

    >>> paths(("closed", 60), 4_100, 40)
    [('closed', 60), ('closed', 60, 1), ('closed', 60, 2)]
    """
    return [_page(path, page) for page in range(max(1, -(-rows // rows_a_page(row_bytes))))]


def cut(path: Path, block: bytes, row_bytes: int) -> dict[Path, bytes]:
    """The pages of a block, by path; none of an empty one."""
    size = rows_a_page(row_bytes) * row_bytes
    whole = memoryview(block)
    return {
        _page(path, page): bytes(whole[at : at + size])
        for page, at in enumerate(range(0, len(block), size))
    }


def joined(pages: Sequence[bytes | None], row_bytes: int) -> bytes:
    r"""A block out of its pages; zeros for those that are absent, up to the last that is not.

    >>> joined([None, b"b"], 1)[-2:], joined([None, None], 1)
    (b'\x00b', b'')
    """
    size = rows_a_page(row_bytes) * row_bytes
    stored = max((n for n, page in enumerate(pages, start=1) if page), default=0)
    if not stored:
        return b""
    *whole, last = [page or b"" for page in pages[:stored]]
    return b"".join([*(page.ljust(size, b"\0") for page in whole), last]) if whole else last


def _page(path: Path, page: int) -> Path:
    return (*path, page) if page else path
