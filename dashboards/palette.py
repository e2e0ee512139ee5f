"""Colours of the chart glyphs; those of the page are in `live/static/page.css`.

Actuals are blue, forecasts orange: distinguishable with all common forms of colour blindness.
"""

from typing import Final

ACTUAL: Final = "#5aa9e6"
OPEN: Final = "#a9d6ff"
EXPECTED: Final = "#ffa94d"
MEDIAN: Final = "#ffd8a8"
AHEAD: Final = "#ffa94d"
NOW: Final = "#e8eef7"
VIEWS: Final = "#3f6f97"
CONVERSION: Final = "#63e6be"
