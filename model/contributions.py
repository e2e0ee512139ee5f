"""What the median of a forecast consists of: names, and the block of an explanation.

`model/inference/explanation.py` computes it. This module is for readers as well, so it needs no
torch.

Axes: S = series, C = contributions, G = factors, H = horizon.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

#: Contributions that are factors of the level as well: time of day and week, season of the year,
#: special days, and the last week over what was expected of it.
FACTOR_NAMES: Final = ("week", "year", "special_day", "recent")
#: Contributions, in the order in which they are read: the level of the series; its factors; what
#: the network adds for groups of inputs, for the product's ids and for all earlier buckets; and
#: what it adds with all of these neutral.
CONTRIBUTIONS: Final = (
    "level", *FACTOR_NAMES, "trend", "clicks", "price", "promotion", "closure", "event", "stock",
    "category", "history", "network",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanations:
    """Contributions to the medians of S series, in units sold.

    `units_SCH[s, c, h]` is what `CONTRIBUTIONS[c]` adds to the median of bucket h,
    `cumulative_SCH` to that of the sum over buckets 0…h. They sum to the medians before calibration
    and before these are cut at zero. `factors_SGH[s, g, h]` is the factor `FACTOR_NAMES[g]` of the
    level. `special_days` names the special day of each bucket, "" for none.
    """

    units_SCH: Reals
    cumulative_SCH: Reals
    factors_SGH: Reals
    special_days: tuple[str, ...]
