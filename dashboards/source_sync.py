"""Keep a Bokeh source equal to wanted columns by sending only what changed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import ColumnDataSource


def changed_cells(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, Any]]:
    """Cells of a column that differ, as patches; two NaN are the same.

    >>> changed_cells([1, 2, float("nan")], [1, 5, float("nan")])
    [(1, 5)]
    """
    return [
        (at, after)
        for at, (before, after) in enumerate(zip(old, new, strict=True))
        if before != after and not (_is_nan(before) and _is_nan(after))
    ]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def sync(source: ColumnDataSource, columns: Mapping[str, Sequence[Any]]) -> bool:
    """Make the source hold these columns, by patches if it can. True if it changed."""
    held = source.data
    if set(held) != set(columns) or any(len(held[name]) != len(columns[name]) for name in columns):
        source.data = {name: list(column) for name, column in columns.items()}
        return True
    patches = {name: changed_cells(list(held[name]), column) for name, column in columns.items()}
    patches = {name: cells for name, cells in patches.items() if cells}
    if patches:
        source.patch(patches)
    return bool(patches)


def empty(name: str, *columns: str) -> ColumnDataSource:
    """A named source without rows."""
    return ColumnDataSource(name=name, data={column: [] for column in columns})
