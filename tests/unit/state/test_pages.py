"""Pages: cutting a block and joining it loses, moves and adds nothing."""

import numpy as np
import pytest

from stream.state import pages

_PATH = ("closed", 60)


@pytest.mark.parametrize("rows", [0, 1, 2_045, 2_046, 2_047, 6_000])
@pytest.mark.parametrize("row_bytes", [40, 872])
def test_pages_join_to_the_block_they_were_cut_from(rows: int, row_bytes: int) -> None:
    """Every row is at the page and offset of `page_of`, and no page is too large."""
    block = np.random.default_rng(rows).bytes(rows * row_bytes)
    cut = pages.cut(_PATH, block, row_bytes)
    where = pages.paths(_PATH, rows, row_bytes)

    assert pages.join([cut.get(path) for path in where], row_bytes) == block
    assert list(cut) == where[: len(cut)]
    assert all(len(page) <= pages.PAGE_BYTES for page in cut.values())
    for slot in {0, rows // 2, rows - 1} & set(range(rows)):
        path, at = pages.page_of(_PATH, slot, row_bytes)
        row = block[slot * row_bytes : (slot + 1) * row_bytes]
        assert cut[path][at : at + row_bytes] == row


def test_a_page_fills_the_allocators_class() -> None:
    """With its header it fits jemalloc's class of 80 KiB and wastes less than 0.2 % of it."""
    size = pages.rows_per_page(40) * 40

    assert 0.998 * 80 * 1024 < size + 10 <= 80 * 1024


def test_an_absent_page_is_zeros() -> None:
    """Also the first page; after the last present page the block ends."""
    step = pages.rows_per_page(40) * 40
    block = pages.join([None, b"x" * 40, None], 40)

    assert block == bytes(step) + b"x" * 40
