"""One chunk of training: what the network reads of some lanes, and what it is scored on.

Axes: G = groups, B = lanes of a group, N = G · B lanes, L = buckets of a chunk, X = buckets ahead,
I = inputs, C = calendar, K = carried statistics, P = plan columns.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.inputs.targets import TargetAhead


@dataclass(slots=True)
class Chunk:
    """One chunk of G groups of B lanes, ready for the network; N = G · B lanes, group by group.

    `inputs_NLI`, `scale_NL` and `started_NL` describe the chunk's L buckets; `weight_NL` turns a
    loss in multiples of the scale into one in multiples of the series' mean demand. `calendar_NLC`
    is the same within a group; `ahead_NX` is the demand of the buckets after the chunk's first, up
    to one horizon after its last; `known_NX` is 1 for buckets before the end of the known data that
    were not censored by a stock-out. With plans, `plans_NXP` are those of the buckets of
    `ahead_NX`, and `price_NL` is the mean price they are relative to. `ids_N3` are the rows of the
    embedding, if any. `carried_NLK` are the carried statistics after each bucket, `ends_NL` the
    ends of the buckets in ms. `targets` are those of the configuration, in its order.
    """

    first_G: NDArray[np.int64]
    inputs_NLI: Tensor
    calendar_NLC: Tensor
    scale_NL: Tensor
    weight_NL: Tensor
    started_NL: Tensor
    ahead_NX: Tensor
    known_NX: Tensor
    price_NL: Tensor
    plans_NXP: Tensor | None
    carried_NLK: Tensor
    ends_NL: Tensor
    ids_N3: Tensor | None = None
    targets: tuple[TargetAhead, ...] = ()

    def of_groups(self, first: int, last: int) -> "Chunk":
        """The groups from `first` to `last` (excluded)."""
        size = len(self.scale_NL) // len(self.first_G)
        rows = slice(first * size, last * size)

        def cut(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[rows]

        whole: dict[str, Any] = {
            "first_G": self.first_G[first:last],
            "plans_NXP": cut(self.plans_NXP),
            "ids_N3": cut(self.ids_N3),
            "targets": tuple(target.of_rows(rows) for target in self.targets),
        }
        names = (field.name for field in fields(self) if field.name not in whole)
        return replace(self, **whole, **{name: getattr(self, name)[rows] for name in names})
