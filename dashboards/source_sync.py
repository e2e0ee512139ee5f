"""Updates a Bokeh source to new columns by sending only the changed cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import ColumnDataSource


def changed_cells(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, Any]]:
    """Return the cells of a column that differ, as patches; NaN equals NaN.

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
    """Update the source to these columns, by patches if the shape allows. True if it changed."""
    current = source.data
    if set(current) != set(columns) or any(
        len(current[name]) != len(columns[name]) for name in columns
    ):
        source.data = {name: list(column) for name, column in columns.items()}
        return True
    patches = {name: changed_cells(list(current[name]), column) for name, column in columns.items()}
    patches = {name: cells for name, cells in patches.items() if cells}
    if patches:
        source.patch(patches)
    return bool(patches)


def empty(name: str, *columns: str) -> ColumnDataSource:
    """Create a named source without rows."""
    return ColumnDataSource(name=name, data={column: [] for column in columns})
