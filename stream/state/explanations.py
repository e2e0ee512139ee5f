"""Stored format of explanations: JSON, one value per series that was asked for.

Numbers have six significant digits; contributions that are zero everywhere are left out.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from model.contributions import CONTRIBUTIONS, FACTOR_NAMES, Explanations

#: How long an explanation is kept; a newer forecast needs a newer one.
KEEP_S: Final = 600
#: How long a request waits for a worker.
ASKED_S: Final = 30
#: A contribution below this share of the level is rounding.
_DUST: Final = 1e-7

#: Why there is none: the fallback serves, or the product has no events and so no network forecast.
Missing = Literal["", "fallback", "unseen-product"]
Parts = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class StoredExplanation:
    """Contributions [H] to the medians of one series, by name; empty with a reason in `missing`.

    Only of the forecast with this origin and model; see `model.inference.explanation` for the
    meaning. `special_days` has a name, or "", for each bucket.

    >>> stored = StoredExplanation(5, "m", units={"level": [1.5]})
    >>> StoredExplanation.decode(stored.encode()) == stored
    True
    """

    origin_ms: int
    model_id: str
    missing: Missing = ""
    units: Parts = field(default_factory=dict)
    cumulative: Parts = field(default_factory=dict)
    factors: Parts = field(default_factory=dict)
    special_days: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, parts: Explanations, row: int, *, origin_ms: int, model_id: str
    ) -> "StoredExplanation":
        """The explanation of one of the explained series."""
        units_CH, cumulative_CH = parts.units_SCH[row], parts.cumulative_SCH[row]
        least = _DUST * abs(float(units_CH[0].max()))
        kept = [
            (name, units_H, sums_H)
            for name, units_H, sums_H in zip(CONTRIBUTIONS, units_CH, cumulative_CH, strict=True)
            if max(abs(units_H).max(), abs(sums_H).max()) > least
        ]
        return cls(
            origin_ms,
            model_id,
            units={name: _rounded(units_H.tolist()) for name, units_H, _ in kept},
            cumulative={name: _rounded(sums_H.tolist()) for name, _, sums_H in kept},
            factors={
                name: _rounded(factor_H.tolist())
                for name, factor_H in zip(FACTOR_NAMES, parts.factors_SGH[row], strict=True)
            },
            special_days=list(parts.special_days),
        )

    def encode(self) -> bytes:
        """Bytes for the store."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "StoredExplanation":
        """The inverse of `encode`."""
        return cls(**json.loads(payload))


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
