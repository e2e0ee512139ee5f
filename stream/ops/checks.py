"""The result of one check of `surgecast doctor`."""

from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check. `advice` is empty if there is nothing to do.

    `note` is for information; only `wrong` makes the command fail.
    """

    name: str
    status: Status
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the fields for JSON."""
        return asdict(self)
