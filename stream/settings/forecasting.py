"""Types of the settings of forecasts: quantile levels, the country of the holidays."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator

from stream.settings.addresses import Listed


def require_rising(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Return quantile levels. Raises ValueError unless they rise within (0, 1), one at least.

    >>> require_rising((0.1, 0.5))
    (0.1, 0.5)
    >>> require_rising((0.9, 0.1))
    Traceback (most recent call last):
        ...
    ValueError: 0.9,0.1 do not rise within 0 and 1; write 0.1,0.9
    """
    levels = tuple(quantiles)
    if not levels:
        raise ValueError("there is none; write one level or more, such as 0.1,0.5,0.9")
    rising = all(low < high for low, high in pairwise(levels))
    if not rising or not all(0 < level < 1 for level in levels):
        usable = sorted({level for level in levels if 0 < level < 1}) or [0.1, 0.5, 0.9]
        given, instead = (",".join(map(str, some)) for some in (levels, usable))
        raise ValueError(f"{given} do not rise within 0 and 1; write {instead}")
    return levels


def known_country(code: str) -> str:
    """Return a country code in capitals; empty for none. Raises ValueError for an unknown one.

    >>> known_country("de")
    'DE'
    """
    if code.upper() in ("", "GB"):  # the usual values, without the import
        return code.upper()
    import holidays

    if code.upper() not in holidays.list_supported_countries():
        raise ValueError(f"{code!r} has no calendar of holidays; write a code like GB, US or DE")
    return code.upper()


Quantiles = Annotated[Listed[float], AfterValidator(require_rising)]
Country = Annotated[str, AfterValidator(known_country)]
