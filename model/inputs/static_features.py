"""Static features of each series: category, location, brand, list price, launch.

A name is hashed into one of `ROWS` rows, 0 = unknown; the hash is fixed, so a name has the same row
in every build and a new name needs no table. Static features are the last columns of the carried
statistics, so they are moved, grown and stored with them; carrying a bucket does not change them.

Axes: S = series, K = carried statistics, X = static columns, E = embedding width.
"""

from hashlib import blake2b
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.durations import DAY_MS
from model.errors import InvalidValues

#: Rows of an embedding table; row 0 is unknown.
ROWS: Final = 1024
#: Static features of a series, in order; ids first.
STATIC_NAMES: Final = ("category", "location", "brand", "list_price", "launch_day")
N_STATIC: Final = len(STATIC_NAMES)
N_IDS: Final = 3
#: The first of them are carried; the launch is not an input of the network.
N_STATIC_CARRIED: Final = 4
#: Derived columns after them: the newcomer's prior and the resulting scale.
N_DERIVED: Final = 2
N_CARRIED: Final = N_STATIC_CARRIED + N_DERIVED
CATEGORY: Final = -N_CARRIED
LIST_PRICE: Final = CATEGORY + 3
#: Column of the launch among the static features.
LAUNCH: Final = 4
PRIOR: Final = -2
SCALE: Final = -1


def row_of(kind: str, name: str | None) -> int:
    """Row of a name among those of its kind; 0 for none.

    >>> row_of("category", "bags") == row_of("category", "bags"), row_of("category", None)
    (True, 0)
    >>> row_of("category", "bags") == row_of("brand", "bags")
    False
    """
    if not name:
        return 0
    digest = blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "big") % (ROWS - 1)


def static_row(
    category: str | None = None,
    location: str | None = None,
    brand: str | None = None,
    list_price: float | None = None,
    launched_ms: int | None = None,
) -> NDArray[np.float32]:
    """Static features [X] of one series; the price in its currency, all are optional.

    >>> static_row().tolist(), static_row(list_price=2.5, launched_ms=86_400_000)[-2:].tolist()
    ([0.0, 0.0, 0.0, 0.0, 0.0], [2.5, 1.0])
    """
    names = zip(STATIC_NAMES, (category, location, brand), strict=False)
    ids = (row_of(kind, name) for kind, name in names)
    return np.array([*ids, list_price or 0, launch_day(launched_ms)], np.float32)


def launch_day(launched_ms: int | None) -> float:
    """Days since 1970 at a launch; 0 = unknown.

    >>> launch_day(129_600_000), launch_day(None)
    (1.5, 0.0)
    """
    return (launched_ms or 0) / DAY_MS


def require_static(static_SX: NDArray[np.float32], size: int) -> None:
    """Check the static features of `size` series. Raises InvalidValues.

    >>> require_static(np.zeros((2, 5), np.float32), 2)
    """
    if static_SX.shape != (size, N_STATIC):
        raise InvalidValues(
            f"static features have shape {static_SX.shape}, not [{size}, {N_STATIC}]"
        )
    ids = static_SX[:, :N_IDS]
    if not np.isfinite(static_SX).all() or static_SX.min(initial=0) < 0:
        raise InvalidValues("static features must be finite and not negative")
    if ids.max(initial=0) >= ROWS or (ids % 1).any():
        raise InvalidValues(f"static ids must be whole numbers below {ROWS}")


def set_static(stats_SK: Tensor, static_SX: Tensor, config: ModelConfig) -> None:
    """Write the static features of series into their carried statistics, in place."""
    if config.uses_static:
        stats_SK[:, CATEGORY:PRIOR] = static_SX[:, :N_STATIC_CARRIED].to(stats_SK)


def ids_of(stats_SK: Tensor, config: ModelConfig) -> Tensor | None:
    """Rows [S, 3] of category, location and brand; None without an embedding."""
    return stats_SK[:, CATEGORY:LIST_PRICE].long() if config.static else None


class StaticEmbedding(nn.Module):
    """The sum of one learned vector for each id; an id unseen in training counts as unknown."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(N_IDS * ROWS, width))
        self.met: Tensor
        self.register_buffer("met", torch.zeros(N_IDS * ROWS))
        self.offset_3: Tensor
        offset_3 = torch.arange(N_IDS) * ROWS
        self.register_buffer("offset_3", offset_3, persistent=False)

    def mark_seen(self, static_SX: Tensor) -> None:
        """Mark the ids that occur in training."""
        self.met[static_SX[:, :N_IDS].long() + self.offset_3] = 1.0

    def forward(self, ids_S3: Tensor) -> Tensor:
        """Embedding [S, E] of series."""
        at_S3 = ids_S3 + self.offset_3
        known_S3 = ids_S3 * self.met[at_S3].long() + self.offset_3
        return self.rows[known_S3].sum(dim=1)
