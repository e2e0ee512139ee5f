"""The foundation models known here. Imports nothing heavy, so that settings can use it."""

from typing import Final, Literal

Kind = Literal["chronos-bolt", "chronos-2", "tirex"]

#: Class of the network, as `config.json` names it under `architectures`.
ARCHITECTURES: Final[dict[Kind, str]] = {
    "chronos-bolt": "ChronosBoltModelForForecasting",
    "chronos-2": "Chronos2Model",
    "tirex": "TiRexZero",
}
#: Package of the registry that contains the class.
PACKAGES: Final[dict[Kind, str]] = {
    "chronos-bolt": "chronos-forecasting",
    "chronos-2": "chronos-forecasting",
    "tirex": "tirex-ts",
}
#: Extra of this product that installs the packages.
EXTRA: Final = "foundation"
