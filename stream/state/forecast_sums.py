"""Stored format of the sums of a partition's forecasts, by roll-up, at one origin.

Partitions may be some buckets apart, so the last `KEPT` origins are kept, in a ring of keys.

Axes: G = roll-ups, H = horizon.
"""

from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.state.port import Path

#: Origins whose sums are kept.
KEPT: Final = 8
_KIND: Final = "means"


class ForecastSums(msgspec.Struct):
    """Sums of one partition: float32 means [G, H] by roll-up, `total` first.

    `variances` are float32 [2, H], summed over all series: of buckets, and of cumulative demand.
    """

    origin_ms: int
    names: list[str]
    means: bytes
    variances: bytes

    @classmethod
    def of(
        cls,
        origin_ms: int,
        names: list[str],
        mean_GH: NDArray[np.floating],
        variance_2H: NDArray[np.floating],
    ) -> Self:
        """Pack sums."""
        means, variances = (part.astype("<f4").tobytes() for part in (mean_GH, variance_2H))
        return cls(origin_ms, names, means, variances)

    def fits(self, origin_ms: int, horizon: int) -> bool:
        """True for the sums of this origin and horizon."""
        return (
            self.origin_ms == origin_ms
            and len(self.means) == 4 * len(self.names) * horizon
            and len(self.variances) == 8 * horizon
        )

    @property
    def mean_GH(self) -> NDArray[np.float32]:
        """Sums of means."""
        return np.frombuffer(self.means, "<f4").reshape(len(self.names), -1)

    @property
    def variance_2H(self) -> NDArray[np.float32]:
        """Sums of variances."""
        return np.frombuffer(self.variances, "<f4").reshape(2, -1)


def sums_path(origin_ms: int, bucket_ms: int) -> Path:
    """Path of the sums of an origin.

    >>> sums_path(9 * 60_000, 60_000)
    ('means', 1)
    """
    return _KIND, origin_ms // bucket_ms % KEPT


def pack_sums(sums: ForecastSums) -> bytes:
    """Bytes of the sums; `unpack_sums` is the inverse."""
    return msgspec.msgpack.encode(sums)


def unpack_sums(payload: bytes | None) -> ForecastSums | None:
    """Sums from their bytes; None for none, or those of another layout.

    >>> made = ForecastSums.of(60, ["total"], np.ones((1, 2)), np.ones((2, 2)))
    >>> unpack_sums(pack_sums(made)) == made, unpack_sums(b"x") is None
    (True, True)
    """
    if payload is None:
        return None
    try:
        return msgspec.msgpack.decode(payload, type=ForecastSums)
    except msgspec.MsgspecError:
        return None
