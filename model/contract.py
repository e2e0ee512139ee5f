"""Contract between stream and model: the feature columns and the forecast block.

The stream sums events into buckets with exactly these columns; the network reads them in order. A
checkpoint stores their hash, and a build with other columns refuses it.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

#: Columns that are sums of events. `units` and `returns` are units sold and returned, `revenue` is
#: money (net of returns), `orders` counts order lines, the rest count clicks; `visitors` counts
#: distinct visitors of the series in the bucket.
SUM_NAMES = (
    "units",
    "returns",
    "revenue",
    "orders",
    "views",
    "carts",
    "removes",
    "purchases",
    "visitors",
)

#: Stock columns: `stock` is the units on hand at the bucket's end **plus one**, 0 where unknown, so
#: that a row of zeros is a silent bucket with unknown stock; `stockout_share` is the share of the
#: bucket, in [0, 1], with nothing on hand.
STOCK_NAMES = ("stock", "stockout_share")

#: Columns of a closed bucket, in the order the network reads them.
FEATURE_NAMES = (*SUM_NAMES, *STOCK_NAMES)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Names and order of the stored feature columns.

    >>> FeatureSpec().hash == FeatureSpec(FEATURE_NAMES).hash
    True
    >>> FeatureSpec().index("revenue")
    2
    """

    names: tuple[str, ...] = FEATURE_NAMES

    @property
    def hash(self) -> str:
        """Sixteen hex digits that change with any name or the order."""
        return blake2b("\0".join(self.names).encode(), digest_size=8).hexdigest()

    def index(self, name: str) -> int:
        """Column of `name`. Raises ValueError for an unknown name."""
        return self.names.index(name)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class QuantileForecast:
    """Forecasts of S series made at one origin.

    `units_SHQ[s, h, q]` is quantile q of the demand in bucket `origin_ms + h * bucket_ms`;
    `cumulative_SHQ[s, h, q]` that of the sum over buckets 0…h. Float32, never negative, rising with
    q; `cumulative_SHQ` also rises with h. `mean_SH[s, h]` is the expected demand of the bucket.
    `extras` are blocks like `units_SHQ`, by name, for the further targets of the model
    (`model.inputs.targets`), if any.
    """

    origin_ms: int
    bucket_ms: int
    quantiles: tuple[float, ...]
    units_SHQ: NDArray[np.float32]
    cumulative_SHQ: NDArray[np.float32]
    mean_SH: NDArray[np.float32]
    model_id: str
    extras: dict[str, NDArray[np.float32]] = field(default_factory=dict)
