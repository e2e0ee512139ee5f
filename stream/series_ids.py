"""The grammar of series ids: `SKU`, `SKU@location`, and the roll-ups."""

import numpy as np
from numpy.typing import NDArray


def split_series(series_id: str) -> tuple[str | None, str | None]:
    """SKU and location of a series id; both None for a roll-up.

    >>> split_series("85123A@Berlin"), split_series("85123A"), split_series("category:Bags")
    (('85123A', 'Berlin'), ('85123A', None), (None, None))
    """
    if series_id == "total" or series_id.startswith(("category:", "location:")):
        return None, None
    sku, _, location = series_id.partition("@")
    return sku, location or None


def rollups_of(series: list[str]) -> NDArray[np.int64]:
    """Places of the roll-ups among series ids.

    >>> rollups_of(["85123A", "total", "category:garden"]).tolist()
    [1, 2]
    """
    heads = ("category:", "location:")
    found = [
        place for place, name in enumerate(series) if name == "total" or name.startswith(heads)
    ]
    return np.array(found, np.int64)
